"""Intervals against hand numbers and against slow, plain computations."""

from __future__ import annotations

import itertools
import math
import statistics

import numpy as np
import pytest

from pggrpo_cli.report.intervals import (
    interquartile_mean,
    interval_over_seeds,
    moving,
    of_difference,
    of_mean,
    over_seeds,
    student,
    window_of,
)


def coverage(limit: float, degrees: int) -> float:
    """The mass of Student's t within ±limit, by the trapezoid rule on its density."""
    t = np.linspace(-limit, limit, 200_001)
    scale = math.gamma((degrees + 1) / 2) / (math.sqrt(degrees * math.pi) * math.gamma(degrees / 2))
    return float(np.trapezoid(scale * (1 + t**2 / degrees) ** (-(degrees + 1) / 2), t))


@pytest.mark.parametrize("degrees", [*range(1, 21), 21, 22, 30, 60, 120, 300])
def test_students_factor_covers_95_percent(degrees: int) -> None:
    assert coverage(float(student(degrees)), degrees) == pytest.approx(0.95, abs=1e-5)


def test_no_degree_of_freedom_has_no_factor() -> None:
    assert np.isnan(student(0))


def test_of_mean() -> None:
    found = of_mean([2.0, 4.0, 9.0, math.nan])
    half = 4.3027 * statistics.stdev([2, 4, 9]) / math.sqrt(3)
    assert found == pytest.approx((5.0, 5.0 - half, 5.0 + half))
    assert math.isnan(of_mean([3.5]).low)
    assert math.isnan(of_mean([]).value)


def test_rewards_of_0_and_1_have_wilsons_interval() -> None:
    assert of_mean([0.0] * 10) == pytest.approx((0.0, 0.0, 0.2775), abs=1e-4)
    assert of_mean([1.0] * 5 + [0.0] * 5) == pytest.approx((0.5, 0.2366, 0.7634), abs=1e-4)


def test_of_difference_is_paired() -> None:
    found = of_difference([0.0, 1.0, 0.0], [1.0, 1.0, 0.5])
    half = 4.3027 * statistics.stdev([1.0, 0.0, 0.5]) / math.sqrt(3)
    assert found == pytest.approx((0.5, 0.5 - half, 0.5 + half))


def test_moving_is_what_a_loop_computes() -> None:
    values = np.array([1e6 + math.sin(place) for place in range(40)])
    values[[3, 4, 5, 6, 7, 20]] = np.nan
    mean, low, high = moving(values, 5)
    for place in range(40):
        window = [one for one in values[max(0, place - 4) : place + 1].tolist() if not math.isnan(one)]
        if not window:
            assert math.isnan(mean[place])
            continue
        assert mean[place] == pytest.approx(statistics.mean(window), rel=1e-12)
        if len(window) >= 4:
            half = float(student(len(window) - 1)) * statistics.stdev(window) / math.sqrt(len(window))
            assert (high[place] - low[place]) / 2 == pytest.approx(half, rel=1e-4)
        else:
            assert math.isnan(low[place])  # two values would say nothing


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([5, 8, 4, 38, 8, 6, 9, 7, 7, 3, 1, 6], 6.5),
        ([1, 3, 5, 7, 9, 11, 13, 15, 17], 9.0),
        ([1.0, 2.0, 6.0], (0.25 * 1 + 2 + 0.25 * 6) / 1.5),
        ([4.0], 4.0),
    ],
)
def test_interquartile_mean(values: list[float], expected: float) -> None:
    assert float(interquartile_mean(np.array(values, dtype=float))) == pytest.approx(expected)


def test_few_seeds_take_every_resample() -> None:
    values = [0.1, 0.5, 0.4]
    all_of_them = sorted(float(interquartile_mean(np.array(one))) for one in itertools.product(values, repeat=3))
    centre, low, high = interval_over_seeds(values)
    assert centre == pytest.approx((0.25 * 0.1 + 0.4 + 0.25 * 0.5) / 1.5)
    assert (low, high) == pytest.approx(tuple(np.percentile(all_of_them, [2.5, 97.5])))


def test_many_seeds_are_resampled_the_same_way_each_time() -> None:
    values = np.random.default_rng(3).normal(size=(8, 4))
    first, second = over_seeds(values), over_seeds(values)
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one, other)
    centre, low, high = first
    assert (low < centre).all()
    assert (centre < high).all()
    assert math.isnan(interval_over_seeds([0.3]).low)


def test_windows() -> None:
    assert [window_of(count) for count in (3, 24, 200, 10_000)] == [5, 5, 10, 200]
