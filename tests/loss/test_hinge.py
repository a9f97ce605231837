"""The hinge by hand."""

from __future__ import annotations

import math

from pggrpo_cli.loss.hinge import Hinge
from tests.loss.batches import by_sequence, check_all, make_batch, value


def test_the_equation_by_hand() -> None:
    logprobs, batch = make_batch()
    assert batch.ref_logprobs is not None
    for beta in (0.3, 5.0):
        rewards = (beta * by_sequence(logprobs - batch.ref_logprobs, batch)).tolist()
        expected = (max(0.0, 1 - rewards[0] + rewards[1]) + max(0.0, 1 - rewards[2] + rewards[3])) / 2
        assert math.isclose(float(value(Hinge(beta=beta, length_normalized=False), logprobs, batch)), expected)


def test_what_holds_for_every_loss() -> None:
    check_all(lambda: Hinge(beta=0.3, length_normalized=False))
