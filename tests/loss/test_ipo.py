"""IPO by hand, on sums and on means."""

from __future__ import annotations

import math

import pytest

from pggrpo_cli.loss.ipo import Ipo
from tests.loss.batches import by_sequence, check_all, make_batch, value


@pytest.mark.parametrize("normalized", [False, True])
def test_the_equation_by_hand(normalized: bool) -> None:
    logprobs, batch = make_batch()
    assert batch.ref_logprobs is not None
    ratios = (by_sequence(logprobs - batch.ref_logprobs, batch) / (batch.lengths if normalized else 1)).tolist()
    gaps = [ratios[0] - ratios[1], ratios[2] - ratios[3]]
    expected = sum((gap - 1 / (2 * 0.3)) ** 2 for gap in gaps) / 2
    assert math.isclose(float(value(Ipo(beta=0.3, length_normalized=normalized), logprobs, batch)), expected)


@pytest.mark.parametrize("normalized", [False, True])
def test_what_holds_for_every_loss(normalized: bool) -> None:
    check_all(lambda: Ipo(beta=0.3, length_normalized=normalized))
