"""pass@k by counting all subsets, the bootstrap against the normal law and against a case that can be enumerated."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from pggrpo_cli.estimates import bootstrap, pass_at_k


@pytest.mark.parametrize("solved", range(7))
@pytest.mark.parametrize("k", range(1, 7))
def test_pass_at_k_is_the_share_of_subsets_with_a_right_one(solved: int, k: int) -> None:
    completions = [1] * solved + [0] * (6 - solved)
    subsets = list(itertools.combinations(completions, k))
    assert pass_at_k(6, solved, k) == pytest.approx(sum(any(one) for one in subsets) / len(subsets), abs=1e-15)


def test_pass_at_k_is_unbiased_where_the_plug_in_is_not() -> None:
    """Over all outcomes of four draws with chance 0.3: the mean of the estimate is 1 − 0.7²."""
    chance, n, k = 0.3, 4, 2
    weights = [math.comb(n, c) * chance**c * (1 - chance) ** (n - c) for c in range(n + 1)]
    exact = 1 - (1 - chance) ** k
    assert sum(w * pass_at_k(n, c, k) for c, w in enumerate(weights)) == pytest.approx(exact, abs=1e-12)
    assert abs(sum(w * (1 - (1 - c / n) ** k) for c, w in enumerate(weights)) - exact) > 0.01


def test_more_than_was_sampled_is_refused() -> None:
    with pytest.raises(ValueError, match="pass@8 needs at least 8 completions of a prompt, not 4"):
        pass_at_k(4, 1, 8)


def test_the_interval_is_that_of_the_normal_law_for_many_values() -> None:
    values = np.random.default_rng(0).normal(2.0, 3.0, 4000)
    found = bootstrap(values.tolist(), 0.95, 4000, seed=1)
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_two_values_have_three_possible_means() -> None:
    """Resampled means of {0, 1} are 0, ½, 1 with chances ¼, ½, ¼: the 60 % interval is [0, 1], the 40 % one [½, ½]."""
    assert bootstrap([0.0, 1.0], 0.6, 20000, seed=3) == bootstrap([0.0, 1.0], 0.6, 20000, seed=3)
    wide, narrow = bootstrap([0.0, 1.0], 0.6, 20000, seed=3), bootstrap([0.0, 1.0], 0.4, 20000, seed=3)
    assert (wide.low, wide.high) == (0.0, 1.0)
    assert (narrow.low, narrow.high) == (0.5, 0.5)


def test_nothing_to_average_is_nan_and_one_value_is_certain() -> None:
    assert math.isnan(bootstrap([], 0.95, 100, seed=0).mean)
    one = bootstrap([0.25], 0.95, 100, seed=0)
    assert (one.mean, one.low, one.high) == (0.25, 0.25, 0.25)
