"""Ticks that a reader would have chosen."""

from __future__ import annotations

import numpy as np
import pytest

from pggrpo_cli.report.axis import linear, logarithmic, tick_words, time_unit, wants_log, widened


@pytest.mark.parametrize(("low", "high", "words"), [
    (0.0, 0.47, ["0", "0.1", "0.2", "0.3", "0.4", "0.5"]),
    (-0.014, 0.4, ["−0.1", "0", "0.1", "0.2", "0.3", "0.4"]),
    (0.0, 2e-5, ["0", "5e−6", "1.0e−5", "1.5e−5", "2.0e−5"]),
    (0.0, 2_000_000, ["0", "500k", "1.0M", "1.5M", "2.0M"]),
    (5.0, 5.0, ["2", "3", "4", "5", "6", "7", "8"]),
    (0.0, 0.0, ["0", "0.1", "0.2", "0.3", "0.4", "0.5"]),
])  # fmt: skip
def test_ticks(low: float, high: float, words: list[str]) -> None:
    found = widened(low, high, 4)
    assert [text for _, text in found.ticks] == words
    assert (found.low, found.high) == pytest.approx((found.ticks[0][0], found.ticks[-1][0]))
    assert found.low <= low
    assert high <= found.high * (1 + 1e-12)


@pytest.mark.parametrize("power", range(-12, 13, 3))
@pytest.mark.parametrize("factor", [1.0, 1.01, 3.3, 9.99])
def test_every_range_has_a_few_ticks_that_differ(power: int, factor: float) -> None:
    for low in (0.0, -factor * 10.0**power):
        ticks = widened(low, factor * 10.0**power, 4).ticks
        assert 3 <= len(ticks) <= 8
        assert len({text for _, text in ticks}) == len(ticks)


def test_percent_and_whole_numbers() -> None:
    assert [text for _, text in widened(0.0, 0.3, 4, percent=True).ticks][:2] == ["0%", "10%"]
    assert [text for _, text in linear(1, 3, 5, whole=True).ticks] == ["1", "2", "3"]
    assert tick_words(-1500.0, 500.0) == "−1500"


def test_a_curve_with_one_huge_value_is_logarithmic() -> None:
    assert wants_log(np.array([1.0, 1.1, 0.9, 1e6]))
    assert not wants_log(np.array([1.0, 1.1, 0.0, 1e6]))
    assert not wants_log(np.array([1.0, 1.1, 0.9, np.nan]))
    axis = logarithmic(0.5, 2e6)
    assert (axis.low, axis.high) == pytest.approx((0.1, 1e7))
    assert axis.share(np.array([0.1, 1e3, 1e7])) == pytest.approx([0.0, 0.5, 1.0])


def test_units_of_time() -> None:
    assert [time_unit(seconds)[1] for seconds in (90, 600, 8000, 300_000)] == ["seconds", "minutes", "hours", "days"]
