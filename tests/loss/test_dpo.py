"""DPO by hand, with its variations."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from pggrpo_cli.loss.dpo import Dpo
from pggrpo_cli.metrics import values
from tests.loss.batches import by_sequence, check_all, make_batch, scores, value

FIELDS: dict[str, Any] = {
    "beta": 0.3,
    "label_smoothing": 0.0,
    "length_normalized": False,
    "reference_free": False,
    "nll_coef": 0.0,
}


def dpo(**changes: Any) -> Dpo:
    return Dpo(**(FIELDS | changes))


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


def rewards(normalized: bool = False) -> list[float]:
    logprobs, batch = make_batch()
    assert batch.ref_logprobs is not None
    ratios = by_sequence(logprobs - batch.ref_logprobs, batch) / (batch.lengths if normalized else 1)
    return [0.3 * ratio for ratio in ratios.tolist()]


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_equation_by_hand(normalized: bool, smoothing: float) -> None:
    logprobs, batch = make_batch()
    r = rewards(normalized)
    margins = [r[0] - r[1], r[2] - r[3]]
    expected = -sum((1 - smoothing) * log_sigmoid(h) + smoothing * log_sigmoid(-h) for h in margins) / 2
    loss = dpo(label_smoothing=smoothing, length_normalized=normalized)
    assert math.isclose(float(value(loss, logprobs, batch)), expected, rel_tol=1e-12)


@pytest.mark.parametrize("changes", [{}, {"label_smoothing": 0.2}, {"nll_coef": 0.5}, {"length_normalized": True}])
def test_what_holds_for_every_loss(changes: dict[str, Any]) -> None:
    check_all(lambda: dpo(**changes))


def test_metrics_are_the_implicit_rewards() -> None:
    logprobs, batch = make_batch()
    r = rewards()
    metrics = values(dpo()(scores(logprobs, batch), batch).metrics)
    assert math.isclose(metrics["rewards/chosen"], (r[0] + r[2]) / 2)
    assert math.isclose(metrics["rewards/rejected"], (r[1] + r[3]) / 2)
    assert math.isclose(metrics["rewards/margins"], (r[0] - r[1] + r[2] - r[3]) / 2)
    assert metrics["rewards/accuracies"] == ((r[0] > r[1]) + (r[2] > r[3])) / 2
    totals = by_sequence(logprobs.detach(), batch).tolist()
    assert math.isclose(metrics["logps/chosen"], (totals[0] + totals[2]) / 2)


def test_without_a_reference() -> None:
    logprobs, batch = make_batch()
    assert not dpo(reference_free=True).needs_reference
    assert dpo().needs_reference
    totals = by_sequence(logprobs.detach(), batch).tolist()
    margins = [0.3 * (totals[0] - totals[1]), 0.3 * (totals[2] - totals[3])]
    found = value(dpo(reference_free=True), logprobs, replace(batch, ref_logprobs=None))
    assert math.isclose(float(found), -sum(map(log_sigmoid, margins)) / 2, rel_tol=1e-12)


def test_the_likelihood_of_the_chosen() -> None:
    logprobs, batch = make_batch()
    means = (by_sequence(logprobs, batch) / batch.lengths)[[0, 2]]
    difference = value(dpo(nll_coef=0.5), logprobs, batch) - value(dpo(), logprobs, batch)
    assert torch.allclose(difference, -0.5 * means.mean())


def test_no_pairs_give_zero_and_no_nan() -> None:
    logprobs, batch = make_batch()
    nothing = replace(batch, pairs=torch.empty(0, 2, dtype=torch.long), num_pairs=0)
    assert float(value(dpo(nll_coef=1.0), logprobs, nothing)) == 0.0
