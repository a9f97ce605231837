"""The range of a configuration field, written beside it: `beta: Annotated[float, Range(gt=0)]`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Range:
    """gt <, ge ≤, lt >, le ≥. check.py reads it from the source without importing the class."""

    gt: float | None = None
    ge: float | None = None
    lt: float | None = None
    le: float | None = None
