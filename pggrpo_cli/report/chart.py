"""What a chart shows, before anybody draws it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from pggrpo_cli.report.metrics_file import Floats

Style = Literal["line", "faint", "points", "dashed", "area"]
COLOURS = 8


@dataclass(frozen=True, kw_only=True)
class Line:
    """y over x, in order of x. NaN is a gap. `low` and `high`, where there are any, are drawn as a band (bars for points)."""

    label: str
    x: Floats
    y: Floats
    low: Floats | None = None
    high: Floats | None = None
    colour: int = 0
    style: Style = "line"

    @property
    def known(self) -> bool:
        return bool(np.isfinite(self.y).any())


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Some lines over the same axis."""

    title: str
    lines: tuple[Line, ...]
    note: str = ""
    """What is to be known to read it, such as over how many steps it is smoothed."""
    x_label: str = "step"
    percent: bool = False
    from_zero: bool = False
    stacked: bool = False
    """Areas on top of each other; all lines have the same x."""
    marks: tuple[tuple[float, str], ...] = field(default=())
    """Places on the x axis and their words."""
    rules: tuple[tuple[float, str], ...] = field(default=())
    """Heights and their words."""
