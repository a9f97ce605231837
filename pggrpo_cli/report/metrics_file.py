"""metrics.jsonl as series of numbers, whatever state the file is in."""

from __future__ import annotations

import json
import math
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
MAX_STEP = 2**62


@dataclass(frozen=True, slots=True)
class Series:
    """One metric: a value at each of the steps that logged it. NaN where the file says null."""

    steps: Floats
    """Whole numbers, strictly increasing."""
    values: Floats

    def finite(self) -> Series:
        keep = np.isfinite(self.values)
        return Series(self.steps[keep], self.values[keep])

    def at(self, step: int) -> float:
        """NaN where that step has no number."""
        found = self.values[self.steps == step]
        return float(found[0]) if len(found) else math.nan

    def __len__(self) -> int:
        return len(self.steps)


NOTHING = Series(np.empty(0), np.empty(0))


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """All of a run's."""

    series: dict[str, Series]
    last_step: int
    """0: nothing was logged, or only the evaluation before training."""
    lines: int
    unreadable: int
    """Lines that are no JSON object with a step; of a run that is being written, the last one does not count."""

    def get(self, name: str) -> Series:
        """Empty if there is none of that name."""
        return self.series.get(name, NOTHING)

    def has(self, name: str) -> bool:
        """Whether any step has a number."""
        return bool(np.isfinite(self.get(name).values).any())


def read_metrics(file: Path) -> Metrics:
    """A file that is not there is one without lines. Of a step that was logged twice the later line counts."""
    steps = array("d")
    columns: dict[str, tuple[array[int], array[float]]] = {}
    unreadable = 0
    if file.is_file():
        with open(file, "rb") as lines:
            for raw in lines:
                record = _record(raw)
                step = None if record is None else _step(record.get("step"))
                if record is None or step is None:
                    unreadable += bool(raw.strip()) and raw.endswith(b"\n")
                    continue
                for name, value in record.items():
                    number = _number(value)
                    if name != "step" and number is not None:
                        places, values = columns.setdefault(name, (array("q"), array("d")))
                        places.append(len(steps))
                        values.append(number)
                steps.append(step)
    all_steps = np.array(steps)
    return Metrics(
        series={name: _series(all_steps, places, values) for name, (places, values) in columns.items()},
        last_step=int(all_steps.max()) if len(all_steps) else 0,
        lines=len(all_steps),
        unreadable=unreadable,
    )


def _record(raw: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _step(value: Any) -> int | None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and 0 <= value < MAX_STEP else None


def _number(value: Any) -> float | None:
    """NaN for null and what is not finite; None for what is no number at all."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def _series(all_steps: Floats, places: array[int], values: array[float]) -> Series:
    steps, found = all_steps[np.array(places, dtype=np.int64)], np.array(values)
    if len(steps) > 1 and not bool((np.diff(steps) > 0).all()):
        steps, last = np.unique(steps[::-1], return_index=True)
        found = found[::-1][last]
    return Series(steps, found)
