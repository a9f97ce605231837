"""Axes: round ticks and their words."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pggrpo_cli.report.metrics_file import Floats

LOG_ABOVE = 1000.0
"""A positive curve whose largest value is so many times its median is drawn on a logarithmic scale."""


@dataclass(frozen=True, slots=True)
class Axis:
    """From `low` to `high`; `ticks` are (value, words)."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    log: bool = False

    def share(self, values: Floats) -> Floats:
        """Where on the axis, 0 … 1. Outside of it: at its end."""
        low, high = self.low, self.high
        if self.log:
            values, low, high = np.log10(np.maximum(values, self.low)), math.log10(low), math.log10(high)
        return np.clip((values - low) / (high - low), 0.0, 1.0)


def linear(low: float, high: float, count: int, *, percent: bool = False, whole: bool = False) -> Axis:
    """From low to high; about `count` ticks at 1, 2 or 5 times a power of ten."""
    low, high = _with_extent(low, high, percent)
    step = _round_step((high - low) / count)
    return _ticked(low, high, max(step, 1.0) if whole else step, percent)


def widened(low: float, high: float, count: int, *, percent: bool = False) -> Axis:
    """As linear, but it begins and ends at a tick."""
    low, high = _with_extent(low, high, percent)
    step = _round_step((high - low) / count)
    return _ticked(math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step, step, percent)


def _with_extent(low: float, high: float, percent: bool) -> tuple[float, float]:
    """An axis needs two ends: around values that are all the same."""
    if high - low >= 1e-9 * max(abs(low), abs(high), 1e-300):
        return low, high
    pad = abs(low) * 0.5 or (0.04 if percent else 0.5)
    return (low - pad if low else 0.0), high + pad


def _ticked(low: float, high: float, step: float, percent: bool) -> Axis:
    places = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    ticks = [place * step for place in places]
    return Axis(low, high, tuple((value, tick_words(value, step, percent=percent)) for value in ticks))


def logarithmic(low: float, high: float) -> Axis:
    """Whole powers of ten, at most five of them with words."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    last = max(last, first + 1)
    every = -(-(last - first) // 5)
    powers = range(first, last + 1, every)
    return Axis(10.0**first, 10.0**last, tuple((10.0**power, f"1e{power}") for power in powers), log=True)


def wants_log(values: Floats) -> bool:
    known = values[np.isfinite(values)]
    return len(known) > 2 and bool((known > 0).all()) and float(known.max()) > LOG_ABOVE * float(np.median(known))


def time_unit(seconds: float) -> tuple[float, str]:
    """(seconds of one, its name) for an axis that reaches `seconds`."""
    if seconds > 2 * 86400:
        return 86400.0, "days"
    if seconds > 2 * 3600:
        return 3600.0, "hours"
    return (60.0, "minutes") if seconds > 120 else (1.0, "seconds")


def tick_words(value: float, step: float, *, percent: bool = False) -> str:
    if percent:
        value, step = 100 * value, 100 * step
    if abs(value) < step * 1e-6:
        text = "0"
    elif abs(value) >= 1e4 and step >= 100:
        scale, unit = next(one for one in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if abs(value) >= one[0])
        text = f"{value / scale:.{_decimals(step / scale)}f}{unit}"
    elif step < 1e-4:
        mantissa, exponent = f"{value:.{max(0, _decimals(step) + math.floor(math.log10(abs(value))))}e}".split("e")
        text = f"{mantissa}e{int(exponent)}"
    else:
        text = f"{value:.{_decimals(step)}f}"
    return text.replace("-", "−") + ("%" if percent else "")


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next((factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= rough * 0.8), 10 * power)


def _decimals(step: float) -> int:
    return max(0, -math.floor(math.log10(step) + 1e-9))
