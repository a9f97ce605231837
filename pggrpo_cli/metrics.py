"""Metrics that merge exactly: each is a mean (sum and count), a maximum or a minimum."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Metric:
    """One number in the making. `total` may be a 0-d tensor: it is read only in `value`, so a GPU need not wait."""

    kind: Literal["mean", "max", "min", "sum"]
    total: float | torch.Tensor
    count: float | torch.Tensor = 1.0

    @property
    def value(self) -> float:
        """The number; NaN for a mean over nothing."""
        if self.kind != "mean":
            return float(self.total)
        count = float(self.count)
        return float(self.total) / count if count else math.nan


def mean(total: float | torch.Tensor, count: float | torch.Tensor) -> Metric:
    """A mean from its sum and count (pass detached tensors)."""
    return Metric("mean", total, count)


def maximum(value: float | torch.Tensor) -> Metric:
    return Metric("max", value)


def minimum(value: float | torch.Tensor) -> Metric:
    return Metric("min", value)


def total(value: float | torch.Tensor) -> Metric:
    return Metric("sum", value)


def merge(parts: Iterable[Mapping[str, Metric]]) -> dict[str, Metric]:
    """The metrics of the whole from those of its parts. Raises ValueError if one name has two kinds."""
    merged: dict[str, Metric] = {}
    for part in parts:
        for name, metric in part.items():
            merged[name] = _merge_two(name, merged[name], metric) if name in merged else metric
    return merged


def _merge_two(name: str, left: Metric, right: Metric) -> Metric:
    if left.kind != right.kind:
        raise ValueError(f"metric {name} is a {left.kind} in one part and a {right.kind} in another")
    if left.kind in ("mean", "sum"):
        count = left.count + right.count if left.kind == "mean" else 1.0
        return Metric(left.kind, left.total + right.total, count)
    pick = max if left.kind == "max" else min
    return Metric(left.kind, pick(left.total, right.total))


def values(metrics: Mapping[str, Metric]) -> dict[str, float]:
    """Plain numbers by name."""
    return {name: metric.value for name, metric in metrics.items()}


def objective(metrics: Mapping[str, float], name: str | None = None) -> float | None:
    """What a sweeper is told: the metric `name` (sweep.metric), unless that is None the last eval/reward, else reward; None
    if there is none."""
    value = metrics.get("eval/reward", metrics.get("reward")) if name is None else metrics.get(name)
    return None if value is None or math.isnan(value) else float(value)
