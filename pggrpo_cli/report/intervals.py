"""What a mean is worth: intervals of 95 %, moving means, and the interquartile mean over seeds.

Nothing here draws at random unless a bootstrap has too many resamples to take them all, and then by a fixed seed.
"""

from __future__ import annotations

from itertools import product
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pggrpo_cli.report.metrics_file import Floats

Z = NormalDist().inv_cdf(0.975)
# fmt: off
T_95 = (
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281,
    2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860,
)
# fmt: on
"""Student's t, two-sided 95 %, for 1 … 20 degrees of freedom."""
ALL_RESAMPLES_UP_TO = 5
"""n values have nⁿ resamples: 3125 of 5."""
RESAMPLES = 2000
FULL = 0.8
SHORTEST_WINDOW, LONGEST_WINDOW, WINDOWS_A_RUN = 5, 200, 20


class Interval(NamedTuple):
    """A value and its 95 % interval; low and high are NaN where nothing is known of the spread."""

    value: float
    low: float
    high: float


def student(degrees: ArrayLike) -> Floats:
    """The factor of a 95 % interval; NaN below one degree of freedom. Beyond the table by Cornish and Fisher's series."""
    nu = np.asarray(degrees, dtype=float)
    table = np.array([np.nan, *T_95])
    inside = nu <= len(T_95)
    large = np.where(inside, len(T_95), nu)
    series = Z + (Z**3 + Z) / (4 * large) + (5 * Z**5 + 16 * Z**3 + 3 * Z) / (96 * large**2)
    series += (3 * Z**7 + 19 * Z**5 + 17 * Z**3 - 15 * Z) / (384 * large**3)
    return np.where(inside, table[np.clip(np.where(inside, nu, 0), 0, len(T_95)).astype(int)], series)


def of_mean(values: ArrayLike) -> Interval:
    """The mean of independent values. Values that are all 0 or 1 get Wilson's interval, which has a width even where
    all are equal; others mean ± t · s/√n, s with ddof 1."""
    found = np.asarray(values, dtype=float)
    found = found[np.isfinite(found)]
    n = len(found)
    if n == 0:
        return Interval(np.nan, np.nan, np.nan)
    mean = float(found.mean())
    if bool(np.isin(found, (0.0, 1.0)).all()):
        centre = (mean + Z**2 / (2 * n)) / (1 + Z**2 / n)
        half = Z / (1 + Z**2 / n) * np.sqrt(mean * (1 - mean) / n + Z**2 / (4 * n**2))
        return Interval(mean, max(0.0, float(centre - half)), min(1.0, float(centre + half)))
    if n == 1:
        return Interval(mean, np.nan, np.nan)
    half = float(student(n - 1)) * float(found.std(ddof=1)) / np.sqrt(n)
    return Interval(mean, mean - half, mean + half)


def of_difference(before: ArrayLike, after: ArrayLike) -> Interval:
    """Of the mean difference of pairs: mean ± t · s/√n."""
    differences = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    differences = differences[np.isfinite(differences)]
    n = len(differences)
    if n < 2:
        return Interval(float(differences.mean()) if n else np.nan, np.nan, np.nan)
    mean = float(differences.mean())
    half = float(student(n - 1)) * float(differences.std(ddof=1)) / np.sqrt(n)
    return Interval(mean, mean - half, mean + half)


def window_of(count: int) -> int:
    """Over how many steps a curve of `count` steps is smoothed."""
    return min(max(SHORTEST_WINDOW, count // WINDOWS_A_RUN), LONGEST_WINDOW)


def moving(values: Floats, window: int) -> tuple[Floats, Floats, Floats]:
    """(mean, low, high) over the last `window` values at each place; NaN are left out.

    The values of steps are independent given the policy, because every step has its own prompts: so the interval is
    mean ± t · s/√n of the window's values. What the policy learned within the window widens it. There is none (NaN)
    before the window is four fifths full: of two values it would say nothing, and flatten everything else on a chart.
    """
    known = np.isfinite(values)
    shift = float(values[known].mean()) if known.any() else 0.0  # sums of squares of large numbers lose the small ones
    filled = np.where(known, values - shift, 0.0)
    count = _window_sum(known.astype(float), window)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = _window_sum(filled, window) / count
        variance = np.maximum(_window_sum(filled**2, window) - count * mean**2, 0.0) / (count - 1)
        half = student(count - 1) * np.sqrt(variance / count)
    mean = np.where(count > 0, mean + shift, np.nan)
    half = np.where(count >= FULL * window, half, np.nan)
    return mean, mean - half, mean + half


def _window_sum(values: Floats, window: int) -> Floats:
    total = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    return total[ends] - total[np.maximum(ends - window, 0)]


def interquartile_mean(values: Floats) -> Floats:
    """Over axis 0 [n, …]: the mean of the middle half, the values at its ends counted by the part that lies in it."""
    n = len(values)
    ordered = np.sort(values, axis=0)
    edges = np.arange(n + 1) / n
    weights = np.clip(np.minimum(edges[1:], 0.75) - np.maximum(edges[:-1], 0.25), 0.0, None)
    result: Floats = np.tensordot(weights / weights.sum(), ordered, axes=1)
    return result


def over_seeds(values: Floats) -> tuple[Floats, Floats, Floats]:
    """[n, …] → (interquartile mean, low, high): the interval is the percentile bootstrap over the n seeds.

    Up to 5 seeds every resample is taken; beyond, 2000 by a fixed seed. One seed has no interval (NaN).
    """
    values = np.asarray(values, dtype=float)
    n = len(values)
    centre = interquartile_mean(values)
    if n < 2:
        return centre, np.full_like(centre, np.nan), np.full_like(centre, np.nan)
    resampled = np.stack([interquartile_mean(values[chosen]) for chosen in _resamples(n)])
    low, high = np.percentile(resampled, [2.5, 97.5], axis=0)
    return centre, low, high


def _resamples(n: int) -> NDArray[np.int64]:
    if n <= ALL_RESAMPLES_UP_TO:
        return np.array(list(product(range(n), repeat=n)), dtype=np.int64)
    return np.random.default_rng(0).integers(0, n, size=(RESAMPLES, n))


def interval_over_seeds(values: ArrayLike) -> Interval:
    """over_seeds of one number a seed; NaN are left out."""
    found = np.asarray(values, dtype=float)
    found = found[np.isfinite(found)]
    if not len(found):
        return Interval(np.nan, np.nan, np.nan)
    centre, low, high = over_seeds(found)
    return Interval(float(centre), float(low), float(high))
