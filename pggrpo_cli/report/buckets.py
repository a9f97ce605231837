"""A long curve as few points that hide no extreme."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np

from pggrpo_cli.report.metrics_file import Floats

MAX_POINTS = 240


class Buckets(NamedTuple):
    """A point a bucket of neighbouring steps. low and high are the extremes; equal to the mean if nothing was merged."""

    x: Floats
    mean: Floats
    low: Floats
    high: Floats
    size: int
    """Values a point."""


def bucketed(x: Floats, values: Floats, at_most: int = MAX_POINTS) -> Buckets:
    """Buckets of equally many values, as few as needed; x is the mean of theirs. NaN only where all of a bucket is NaN."""
    n = len(values)
    size = max(1, -(-n // at_most))
    if size == 1:
        return Buckets(x, values, values, values, 1)
    starts = np.arange(0, n, size)
    padding = len(starts) * size - n
    rows = np.pad(values, (0, padding), constant_values=np.nan).reshape(-1, size)
    places = np.pad(x, (0, padding), constant_values=np.nan).reshape(-1, size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a bucket of nothing but NaN is NaN
        return Buckets(
            np.nanmean(places, axis=1), np.nanmean(rows, axis=1), np.nanmin(rows, axis=1), np.nanmax(rows, axis=1), size
        )


def thinned(count: int, at_most: int = MAX_POINTS) -> np.ndarray:
    """Places of at most `at_most` of `count` values, evenly spread, the first and the last among them."""
    if count <= at_most:
        return np.arange(count)
    return np.unique(np.linspace(0, count - 1, at_most).round().astype(int))
