"""Charts as SVG inside a page: colours and fonts by its style sheet, every text escaped, no script needed to see them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from pggrpo_cli.report.axis import Axis, linear, logarithmic, wants_log, widened
from pggrpo_cli.report.chart import COLOURS, Chart, Line
from pggrpo_cli.report.metrics_file import Floats
from pggrpo_cli.report.visible import visible

DIGIT, WIDE_DIGIT = 6.4, 7.6
"""Width of a character of the axes' words, in units of the view box: small and wide drawings have fonts of their own."""
TOP, BOTTOM, RIGHT = 10.0, 34.0, 12.0


@dataclass(frozen=True, slots=True)
class Size:
    width: int
    height: int


SMALL, WIDE = Size(360, 210), Size(960, 330)


@dataclass(frozen=True, slots=True)
class Frame:
    """Where the plot lies in the view box, and what its axes mean."""

    size: Size
    left: float
    x: Axis
    y: Axis

    @property
    def right(self) -> float:
        return self.size.width - RIGHT

    @property
    def bottom(self) -> float:
        return self.size.height - BOTTOM

    def across(self, values: Floats) -> Floats:
        return self.left + self.x.share(values) * (self.right - self.left)

    def up(self, values: Floats) -> Floats:
        return self.bottom - self.y.share(values) * (self.bottom - TOP)


def draw(chart: Chart, size: Size = SMALL, name: str = "") -> Markup:
    """`name` ties the drawing to its numbers in the page's data."""
    lines = _stacked(chart.lines) if chart.stacked else chart.lines
    frame = _frame(chart, lines, size)
    parts = [*_grid(frame, chart.x_label), *_rules(frame, chart)]
    for line in reversed(lines) if chart.stacked else lines:
        parts.append(_group(line, Markup("").join(_line(frame, line))))
    parts += _marks(frame, chart)
    return Markup(
        '<svg viewBox="0 0 {} {}" role="img" aria-label="{}" data-chart="{}" data-plot="{} {} {} {}" '
        'data-from="{}" data-to="{}">{}</svg>'
    ).format(
        size.width, size.height, visible(_spoken(chart)), name,
        _n(frame.left), _n(frame.right), _n(TOP), _n(frame.bottom),
        f"{frame.x.low:.9g}", f"{frame.x.high:.9g}", Markup("").join(parts),
    )  # fmt: skip


def numbers(chart: Chart) -> dict[str, Any]:
    """What the drawing's points are, for hovering and for whoever reads the page with a program; NaN is null."""
    xs: list[list[float | None]] = []
    lines = []
    for line in chart.lines:
        x = _rounded(line.x, 12)
        if x not in xs:
            xs.append(x)
        one: dict[str, Any] = {"label": visible(line.label), "colour": line.colour % COLOURS, "x": xs.index(x)}
        one["y"] = _rounded(line.y)
        if line.low is not None and line.high is not None:
            one |= {"low": _rounded(line.low), "high": _rounded(line.high)}
        lines.append(one)
    return {"title": visible(chart.title), "x_label": chart.x_label, "percent": chart.percent, "x": xs, "lines": lines}


def _rounded(values: Floats, digits: int = 6) -> list[float | None]:
    return [float(f"{value:.{digits}g}") if np.isfinite(value) else None for value in values]


def _spoken(chart: Chart) -> str:
    said = []
    for line in chart.lines:
        known = line.y[np.isfinite(line.y)]
        if len(known):
            said.append(f"{line.label} from {known[0]:.4g} to {known[-1]:.4g}")
    return f"{chart.title}: {'; '.join(said[:COLOURS]) or 'no values'}"


def _stacked(lines: tuple[Line, ...]) -> tuple[Line, ...]:
    height = np.zeros(len(lines[0].x))
    found = []
    for line in lines:
        below, height = height, height + np.nan_to_num(line.y)
        found.append(Line(label=line.label, x=line.x, y=height, low=below, colour=line.colour, style="area"))
    return tuple(found)


def _frame(chart: Chart, lines: tuple[Line, ...], size: Size) -> Frame:
    xs = np.concatenate([line.x for line in lines])
    ys = np.concatenate([part for line in lines for part in (line.y, line.low, line.high) if part is not None])
    ys = np.concatenate([ys, [height for height, _ in chart.rules]])
    ys = ys[np.isfinite(ys)]
    if chart.percent:
        ys = np.clip(ys, 0.0, 1.0)  # an interval may reach beyond what there is
    count = 4 if size is SMALL else 5
    if not chart.percent and wants_log(ys):
        y = logarithmic(float(ys.min()), float(ys.max()))
    else:
        low = 0.0 if chart.from_zero or chart.percent or chart.stacked else float(ys.min())
        y = widened(min(low, float(ys.min())), float(ys.max()), count, percent=chart.percent)
    left = 10 + (DIGIT if size is SMALL else WIDE_DIGIT) * max((len(words) for _, words in y.ticks), default=1)
    low, high = float(np.nanmin(xs)), float(np.nanmax(xs))
    if low == high:
        low, high = low - 1, high + 1
    return Frame(size, left, linear(low, high, 5 if size is SMALL else 8, whole=chart.x_label == "step"), y)


def _grid(frame: Frame, x_label: str) -> Iterator[Markup]:
    for value, words in frame.y.ticks:
        (y,) = frame.up(np.array([value]))
        yield Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
            _n(frame.left), _n(frame.right), _n(y), _n(y)
        )
        yield _text(words, frame.left - 5, y + 4, "end")
    for value, words in frame.x.ticks:
        (x,) = frame.across(np.array([value]))
        yield Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
            _n(x), _n(x), _n(frame.bottom), _n(frame.bottom + 4)
        )
        room = DIGIT * len(words) / 2
        yield _text(words, min(x, frame.size.width - room - 1), frame.bottom + 15, "middle")
    yield _text(x_label, (frame.left + frame.right) / 2, frame.bottom + 29, "middle")


def _rules(frame: Frame, chart: Chart) -> Iterator[Markup]:
    for height, words in chart.rules:
        (y,) = frame.up(np.array([height]))
        yield Markup('<line class="rule" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
            _n(frame.left), _n(frame.right), _n(y), _n(y)
        )
        yield _text(words, frame.right - 2, y - 4 if y > TOP + 14 else y + 13, "end")


def _marks(frame: Frame, chart: Chart) -> Iterator[Markup]:
    for place, words in chart.marks:
        (x,) = frame.across(np.array([place]))
        yield Markup('<line class="mark" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
            _n(x), _n(x), _n(TOP), _n(frame.bottom)
        )
        at_right = x + DIGIT * len(words) + 6 > frame.right
        yield _text(words, x - 4 if at_right else x + 4, frame.bottom - 6, "end" if at_right else "start")


def _group(line: Line, drawn: Markup) -> Markup:
    return Markup('<g class="c{} {}">{}</g>').format(line.colour % COLOURS, line.style, drawn)


def _line(frame: Frame, line: Line) -> Iterator[Markup]:
    x, y = frame.across(line.x), frame.up(line.y)
    low = None if line.low is None else frame.up(line.low)
    high = None if line.high is None else frame.up(line.high)
    if line.style == "area":
        assert low is not None
        yield Markup('<path class="fill" d="{}"/>').format(_closed(x, low, y))
        return
    if low is not None and high is not None:
        if line.style == "points":
            for place, bottom, top in zip(x, low, high, strict=True):
                if np.isfinite(bottom) and np.isfinite(top):
                    yield Markup('<path class="bar" d="M{} {}V{}"/>').format(_n(place), _n(bottom), _n(top))
        else:
            for run in _runs(np.isfinite(low) & np.isfinite(high)):
                if run.stop - run.start > 1:
                    yield Markup('<path class="band" d="{}"/>').format(_closed(x[run], low[run], high[run]))
    path, alone = [], []
    for run in _runs(np.isfinite(y)):
        if run.stop - run.start == 1:
            alone.append(run.start)
        path.append(_path(x[run], y[run]))
    yield Markup('<path class="stroke" d="{}"/>').format(" ".join(path))
    dots = np.flatnonzero(np.isfinite(y)) if line.style == "points" else alone
    for place in dots:
        yield Markup('<circle class="dot" cx="{}" cy="{}" r="2.5"/>').format(_n(x[place]), _n(y[place]))


def _runs(known: np.ndarray) -> Iterator[slice]:
    """Stretches without a gap."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], known, [False]]).astype(int)))
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        yield slice(int(start), int(end))


def _path(x: Floats, y: Floats) -> str:
    return "M" + "L".join(f"{_n(a)} {_n(b)}" for a, b in zip(x, y, strict=True))


def _closed(x: Floats, low: Floats, high: Floats) -> str:
    return _path(np.concatenate([x, x[::-1]]), np.concatenate([high, low[::-1]])) + "Z"


def _text(words: str, x: float, y: float, anchor: str) -> Markup:
    return Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>').format(_n(x), _n(y), anchor, visible(words))


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
