"""What a sample of completions says of a model: pass@k without bias, means with bootstrap intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with the bounds of its confidence interval; NaN where there is nothing to average."""

    mean: float
    low: float
    high: float


def pass_at_k(num_samples: int, num_solved: int, k: int) -> float:
    """The chance that at least one of k completions of a prompt is right, from `num_samples` of which `num_solved` are:

        1 − C(n − c, k) / C(n, k),

    unbiased for k ≤ n (Chen et al. 2021, "Evaluating Large Language Models Trained on Code"), where 1 − (1 − c/n)^k is
    not. Raises ValueError for k > n.
    """
    if not 1 <= k <= num_samples:
        raise ValueError(f"pass@{k} needs at least {k} completions of a prompt, not {num_samples}")
    if num_samples - num_solved < k:
        return 1.0
    return 1.0 - math.comb(num_samples - num_solved, k) / math.comb(num_samples, k)


def bootstrap(values: Sequence[float], confidence: float, resamples: int, seed: int) -> Interval:
    """The mean of `values` (one a prompt) with the percentile interval over resampled prompts (Efron 1979).

    Prompts are drawn, not completions: those of one prompt are no independent evidence. The draws depend on `seed` and the
    number of values alone, so two models measured on the same prompts are resampled alike.
    """
    data = np.asarray(values, dtype=np.float64)
    if data.size == 0:
        return Interval(math.nan, math.nan, math.nan)
    generator = np.random.default_rng(seed)
    means = np.empty(resamples)
    at_once = max(1, 1_000_000 // data.size)
    for start in range(0, resamples, at_once):
        count = min(at_once, resamples - start)
        means[start : start + count] = data[generator.integers(0, data.size, (count, data.size))].mean(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, (tail, 1 - tail))
    return Interval(float(data.mean()), float(low), float(high))
