"""GSPO: the length-normalised ratio of the completion."""

from __future__ import annotations

import math
from typing import Any

import pytest

from pggrpo_cli.loss.gspo import Gspo
from tests.loss.batches import CLIP, KL, check_all, make_batch, value


def test_the_equation_by_hand() -> None:
    logprobs, batch = make_batch()
    assert batch.old_logprobs is not None
    expected = 0.0
    for row, advantage in enumerate(batch.advantages.tolist()):
        own = batch.sequence_index == row
        ratio = math.exp(float((logprobs[own] - batch.old_logprobs[own]).mean()))
        expected -= min(ratio * advantage, min(max(ratio, 0.8), 1.2) * advantage) / 4
    assert math.isclose(float(value(Gspo(**CLIP, **KL), logprobs, batch)), expected, rel_tol=1e-12)


@pytest.mark.parametrize("changes", [{}, {"kl_coef": 0.2}, {"entropy_coef": 0.3}, {"nll_coef": 0.4}])
def test_what_holds_for_every_loss(changes: dict[str, Any]) -> None:
    check_all(lambda: Gspo(**(CLIP | KL | changes)))
