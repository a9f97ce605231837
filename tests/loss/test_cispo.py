"""CISPO: bounded, detached weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pggrpo_cli.loss.cispo import Cispo
from pggrpo_cli.metrics import values
from tests.loss.batches import (
    KL,
    check_context_tokens_count_nowhere,
    check_shares_add_up,
    gradient,
    make_batch,
    scores,
    value,
)

FIELDS: dict[str, Any] = {"ratio_max": 1.1, **KL}


def weights() -> torch.Tensor:
    logprobs, batch = make_batch()
    assert batch.old_logprobs is not None
    ratio = (logprobs - batch.old_logprobs).exp().detach().clamp(max=1.1)
    return -ratio * batch.advantages[batch.sequence_index] / batch.num_tokens


def test_the_equation_and_its_gradient_by_hand() -> None:
    """The weight is a constant: finite differences of the value would be another thing."""
    logprobs, batch = make_batch()
    assert torch.allclose(value(Cispo(**FIELDS), logprobs, batch), (weights() * logprobs).sum(), atol=1e-12)
    assert torch.allclose(gradient(Cispo(**FIELDS), logprobs, batch), weights(), atol=1e-12)


@pytest.mark.parametrize("changes", [{}, {"kl_coef": 0.2}, {"entropy_coef": 0.3}, {"nll_coef": 0.4}])
def test_shares_add_up(changes: dict[str, Any]) -> None:
    check_shares_add_up(Cispo(**(FIELDS | changes)))
    check_context_tokens_count_nowhere(Cispo(**(FIELDS | changes)))


def test_what_the_bound_cuts_is_counted() -> None:
    logprobs, batch = make_batch()
    assert batch.old_logprobs is not None
    cut = ((logprobs - batch.old_logprobs).exp() > 1.1).double().mean()
    metrics = values(Cispo(**FIELDS)(scores(logprobs, batch), batch).metrics)
    assert 0 < float(cut) == metrics["clip_ratio/high_mean"]
