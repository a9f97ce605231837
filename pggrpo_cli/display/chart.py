"""A curve of block characters."""

from __future__ import annotations

from collections.abc import Sequence

LEVELS = " ▁▂▃▄▅▆▇█"
TRACK = "·"


def columns(points: Sequence[tuple[int, float]], total_steps: int, width: int) -> list[float | None]:
    """One value a column, None where the run has not been; a column of several steps shows their mean.

    The axis is the whole run if a column is at most two steps of it, else it doubles as the run goes on.
    """
    last = points[-1][0] if points else 0
    extent = max(total_steps, last, 1)
    if extent > 2 * width:
        shown = width
        while shown < last:
            shown *= 2
        extent = min(extent, shown)
    by_step = dict(points)
    result: list[float | None] = []
    held: float | None = None
    for column in range(width):
        first = column * extent // width + 1
        until = max((column + 1) * extent // width, first)
        values = [by_step[step] for step in range(first, until + 1) if step in by_step]
        if values:
            held = sum(values) / len(values)
        result.append(held if first <= last else None)
    return result


def area(values: Sequence[float | None], height: int) -> list[str]:
    """`height` rows, the highest first: filled up to each value, in eighths of a row. The lowest value still shows."""
    known = [value for value in values if value is not None]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    span = high - low
    levels = [
        None if value is None else 1 + round((8 * height - 1) * ((value - low) / span if span > 0 else 0.5))
        for value in values
    ]
    rows = []
    for row in reversed(range(height)):
        empty = TRACK if row == 0 else " "
        rows.append("".join(empty if one is None else LEVELS[min(max(one - 8 * row, 0), 8)] for one in levels))
    return rows
