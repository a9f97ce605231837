"""The mean negative log-likelihood."""

from __future__ import annotations

import torch

from pggrpo_cli.loss.sft import Sft
from tests.loss.batches import check_all, make_batch, value


def test_the_mean_over_all_tokens() -> None:
    logprobs, batch = make_batch()
    assert torch.allclose(value(Sft(), logprobs, batch), -logprobs.mean())


def test_what_holds_for_every_loss() -> None:
    check_all(Sft)
