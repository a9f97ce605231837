"""PG-GRPO: every consequence that DESIGN lists."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from pggrpo_cli.loss.grpo import Grpo
from pggrpo_cli.loss.gspo import Gspo
from pggrpo_cli.loss.pg_grpo import PgGrpo
from pggrpo_cli.metrics import values
from tests.loss.batches import CLIP, KL, check_all, gradient, make_batch, scores, value


def pg_grpo(**changes: Any) -> PgGrpo:
    fields: dict[str, Any] = {"beta": 0.5, "length_normalized": False, "gradient_scale": "faithful", **CLIP, **KL}
    return PgGrpo(**(fields | changes))


def test_the_equation_by_hand() -> None:
    logprobs, batch = make_batch()
    assert batch.old_logprobs is not None
    expected = 0.0
    for row, advantage in enumerate(batch.advantages.tolist()):
        own = batch.sequence_index == row
        delta = float((logprobs[own] - batch.old_logprobs[own]).sum())
        ratio = math.exp(0.5 * delta)
        expected -= min(ratio * advantage, min(max(ratio, 0.8), 1.2) * advantage) / 4
    assert math.isclose(float(value(pg_grpo(), logprobs, batch)), expected, rel_tol=1e-12)


@pytest.mark.parametrize(
    "changes",
    [{}, {"kl_coef": 0.3}, {"entropy_coef": 0.1}, {"nll_coef": 0.4}, {"ratio_max": 1.5}, {"length_normalized": True},
     {"gradient_scale": "inverse_beta"}, {"kl_coef": 0.3, "kl_reduction": "sequence_sum", "kl_estimator": "k2"}],
)  # fmt: skip
def test_what_holds_for_every_loss(changes: dict[str, Any]) -> None:
    check_all(lambda: pg_grpo(**changes))


@pytest.mark.parametrize("kl_coef", [0.0, 0.2])
def test_beta_one_is_grpo_exactly(kl_coef: float) -> None:
    shared = {**KL, "kl_coef": kl_coef}
    for drift in (0.0, 0.3, 3.0):
        logprobs, batch = make_batch(drift)
        ours, theirs = pg_grpo(beta=1.0, **shared), Grpo(**CLIP, **shared)
        assert torch.equal(value(ours, logprobs, batch), value(theirs, logprobs, batch))
        assert torch.equal(gradient(ours, logprobs, batch), gradient(theirs, logprobs, batch))


def test_length_normalized_with_beta_one_is_gspo_exactly() -> None:
    logprobs, batch = make_batch()
    ours, theirs = pg_grpo(beta=1.0, length_normalized=True), Gspo(**CLIP, **KL)
    assert torch.allclose(value(ours, logprobs, batch), value(theirs, logprobs, batch), atol=1e-15)
    assert torch.allclose(gradient(ours, logprobs, batch), gradient(theirs, logprobs, batch), atol=1e-15)


@pytest.mark.parametrize("beta", [0.1, 0.5, 1.0, 3.0])
def test_where_the_clip_binds(beta: float) -> None:
    """The gradient of a completion vanishes where β·Δ leaves [ln 0.8, ln 1.2], above only for A > 0, below for A < 0."""
    low, high = math.log(0.8) / beta, math.log(1.2) / beta
    for advantage, delta, binds in [
        (1.0, high + 1e-6, True),
        (1.0, high - 1e-6, False),
        (1.0, low - 1.0, False),
        (-1.0, low - 1e-6, True),
        (-1.0, low + 1e-6, False),
        (-1.0, high + 1.0, False),
    ]:
        logprobs, batch = make_batch(lengths=(3,))
        old = logprobs.detach().clone()
        old[0] -= delta
        one = replace(batch, advantages=torch.tensor([advantage], dtype=torch.float64), old_logprobs=old)
        found = gradient(pg_grpo(beta=beta), logprobs, one)
        assert bool((found == 0).all()) == binds
        metrics = values(pg_grpo(beta=beta)(scores(logprobs, one), one).metrics)
        assert metrics["clip_ratio/region_mean"] == float(binds)
        assert metrics["clip_ratio/high_mean"] == float(binds and advantage > 0)
        assert metrics["clip_ratio/low_mean"] == float(binds and advantage < 0)


@pytest.mark.parametrize("beta", [0.05, 0.1, 2.0])
def test_on_the_first_update_the_gradient_is_beta_times_the_policy_gradient(beta: float) -> None:
    logprobs, batch = make_batch(drift=0.0)
    policy_gradient = -batch.advantages[batch.sequence_index] / 4
    assert torch.allclose(gradient(pg_grpo(beta=beta), logprobs, batch), beta * policy_gradient, atol=1e-15)
    scaled = gradient(pg_grpo(beta=beta, gradient_scale="inverse_beta"), logprobs, batch)
    assert torch.allclose(scaled, policy_gradient, atol=1e-15)
    assert values(pg_grpo(beta=beta)(scores(logprobs, batch), batch).metrics)["ratio/max"] == 1.0


def test_the_exponent_is_clamped_and_counted() -> None:
    logprobs, batch = make_batch(lengths=(2, 2))
    assert batch.old_logprobs is not None
    old = logprobs.detach().clone()
    old[0] -= 300.0  # β·Δ = 150, A > 0
    old[2] -= 300.0  # and A < 0: not clipped, its ratio would be e^150
    far = replace(batch, old_logprobs=old)
    output = pg_grpo()(scores(logprobs, far), far)
    metrics = values(output.metrics)
    assert metrics["ratio/clamped_fraction"] == 1.0
    assert math.isclose(metrics["ratio/max"], math.exp(20))
    assert bool(output.loss.isfinite())
    assert not gradient(pg_grpo(), logprobs, far).any()


def test_dual_clip_bounds_what_a_negative_advantage_can_do() -> None:
    logprobs, batch = make_batch(lengths=(2, 2))
    old = logprobs.detach() - 2.0  # Δ = 4, ratio e² for both
    far = replace(batch, old_logprobs=old)
    assert math.isclose(float(value(pg_grpo(), logprobs, far)), -(1.2 * 0.8 - math.exp(2) * 0.5) / 2)
    assert math.isclose(float(value(pg_grpo(ratio_max=3.0), logprobs, far)), -(1.2 * 0.8 - 3 * 0.5) / 2)


def test_the_kl_is_to_the_original_policy_and_needs_no_reference_at_zero() -> None:
    logprobs, batch = make_batch()
    assert batch.ref_logprobs is not None
    difference = batch.ref_logprobs - logprobs
    k3 = (difference.exp() - difference - 1).mean()
    base = value(pg_grpo(), logprobs, batch)
    assert torch.allclose(value(pg_grpo(kl_coef=0.3), logprobs, batch), base + 0.3 * k3)
    assert pg_grpo(kl_coef=0.3).needs_reference
    assert not pg_grpo().needs_reference
    without = replace(batch, ref_logprobs=None)
    assert torch.equal(value(pg_grpo(), logprobs, without), base)


def test_sums_are_taken_in_float32_or_wider() -> None:
    logprobs, batch = make_batch()
    low = logprobs.detach().to(torch.bfloat16)
    assert batch.old_logprobs is not None
    assert value(pg_grpo(), low, replace(batch, old_logprobs=batch.old_logprobs.to(torch.bfloat16))).dtype != low.dtype


def test_importance_weights_multiply_the_surrogate_only() -> None:
    logprobs, batch = make_batch()
    double = replace(batch, importance_weight=torch.full_like(logprobs, 2.0))
    base, kl = value(pg_grpo(), logprobs, batch), value(pg_grpo(kl_coef=0.3), logprobs, batch)
    assert torch.allclose(value(pg_grpo(kl_coef=0.3), logprobs, double), 2 * base + (kl - base))
