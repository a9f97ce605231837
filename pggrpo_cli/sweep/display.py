"""The jobs of a sweep on the terminal: a line a job, redrawn in place; where nothing can be redrawn, a line an event."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from rich.cells import cell_len, set_cell_size

from pggrpo_cli import run_directory as runs
from pggrpo_cli.display.plain_display import drop_output
from pggrpo_cli.display.run_view import duration, number
from pggrpo_cli.following import Following
from pggrpo_cli.logger.console import FILE_COLUMNS, can_redraw
from pggrpo_cli.printable import one_line
from pggrpo_cli.sweep.processes import LOG, Ended
from pggrpo_cli.sweep.states import DEFAULT_METRICS, TIMES, JobState

STILL_SECONDS = 60.0
"""Without an event, how often a plain display says that it goes on."""
NARROW = 60
"""Columns below which a line has no room for the time."""
TOP = ("running", "failed", "stopped", "waiting", "finished")
"""Whose lines stay where there is no room for all."""


@dataclass(kw_only=True)
class Row:
    """A job as the display knows it."""

    number: int
    words: str
    """What tells it from the others."""
    path: Path
    max_steps: int | None
    metric: str | None
    state: str
    values: dict[str, float] = field(default_factory=dict)
    step: int = 0
    times: dict[tuple[str, int], float] = field(default_factory=dict)
    """TIMES of each step."""
    news: Following | None = None
    """None: it does not run."""

    @property
    def value(self) -> float | None:
        names = DEFAULT_METRICS if self.metric is None else (self.metric,)
        return next((self.values[name] for name in names if name in self.values), None)

    @property
    def seconds(self) -> float:
        """As JobState.seconds; 0 before the first step."""
        return sum(self.times.values()) if self.step else 0.0

    def take(self, records: Iterator[dict[str, Any]]) -> None:
        for record in records:
            numbers = {key: float(value) for key, value in record.items() if isinstance(value, int | float)}
            if isinstance(record.get("step"), int):
                self.step = record["step"]
                self.times |= {(name, self.step): numbers[name] for name in TIMES if name in numbers}
            self.values |= numbers


def row_of(state: JobState, words: str) -> Row:
    finite = {name: series.finite() for name, series in state.metrics.series.items()}
    return Row(
        number=state.job.number,
        words=words,
        path=state.path,
        max_steps=state.max_steps,
        metric=state.metric,
        state=state.state,
        values={name: float(series.values[-1]) for name, series in finite.items() if len(series)},
        step=state.step,
        times={
            (name, int(step)): float(value)
            for name in TIMES
            if name in finite
            for step, value in zip(finite[name].steps, finite[name].values, strict=True)
        },
    )


class SweepDisplay:
    """A Watcher of processes."""

    def __init__(self, rows: Sequence[Row], screen: Screen) -> None:
        self._rows = {row.number: row for row in rows}
        self._screen = screen

    def began(self, number: int) -> None:
        row = self._rows[number]
        row.state = "running"
        row.news = Following(row.path / runs.METRICS)
        self._screen.said(
            f"job {number} {'goes on' if row.step else 'begins'}: {row.words} ({runs.shown(row.path / LOG)})", row
        )

    def ended(self, ended: Ended, *, asked: bool) -> None:
        row = self._rows[ended.number]
        self._update(row)
        row.news = None
        end = f"{_value(row)}, {duration(row.seconds)}" if row.step else "no step was done"
        if ended.code == 0:
            done = runs.is_finished(row.path)
            row.state = "finished" if done else "stopped"
            self._screen.said(f"job {ended.number} {'finished' if done else 'stopped, its time is up'}: {end}", row)
        elif asked or ended.code == 75:
            row.state = "stopped"
            saved = "saved" if runs.has_checkpoints(row.path) else "nothing to save yet"
            self._screen.said(f"job {ended.number} stopped, {saved}: {end}", row)
        else:
            row.state = "failed"
            where = f"after step {row.step} ({duration(row.seconds)})" if row.step else "before its first step"
            words = f"exit code {ended.code}: {one_line(ended.words)}"
            self._screen.said(f"job {ended.number} failed {where}, {words}", row, important=True)

    def look(self) -> None:
        for row in self._rows.values():
            self._update(row)
        self._screen.draw(list(self._rows.values()))

    def stopping(self, running: int) -> None:
        jobs = "the job that runs saves and stops" if running == 1 else f"the {running} jobs that run save and stop"
        self._screen.said(f"stopping: {jobs}; a second signal ends them at once", None, important=True)

    def _update(self, row: Row) -> None:
        if row.news is not None:
            with suppress(OSError):
                row.take(row.news.new())


class Screen(Protocol):
    def said(self, text: str, row: Row | None, *, important: bool = False) -> None:
        """Something happened. `important`: it must stay to be read."""
        ...

    def draw(self, rows: Sequence[Row]) -> None: ...


class PlainScreen:
    """Prints what happens; after a while without, how far the jobs are."""

    def __init__(self, clock: Any = time.monotonic) -> None:
        self._clock = clock
        self._last = clock()

    def said(self, text: str, row: Row | None, *, important: bool = False) -> None:
        self._last = self._clock()
        _print(text)

    def draw(self, rows: Sequence[Row]) -> None:
        if self._clock() - self._last < STILL_SECONDS:
            return
        running = [
            f"job {row.number} at step {row.step}/{row.max_steps or '?'}" for row in rows if row.state == "running"
        ]
        self.said(f"{counted(rows)}: {', '.join(running)}", None)


class LiveScreen:
    """A line a job."""

    def __init__(self, live: Any, console: Any) -> None:
        self._live, self._console = live, console
        self._messages: list[str] = []

    def said(self, text: str, row: Row | None, *, important: bool = False) -> None:
        from rich.text import Text

        if important:
            with suppress(OSError):
                self._console.print(Text(text), soft_wrap=True)

    def draw(self, rows: Sequence[Row]) -> None:
        from rich.text import Text

        width, height = self._console.size
        lines = [
            Text(line, style=STYLES.get(state, ""), no_wrap=True) for line, state in lines_of(rows, width, height - 2)
        ]
        with suppress(OSError):
            self._live.update(Text("\n").join(lines), refresh=True)


STYLES = {"running": "green", "failed": "red", "stopped": "yellow", "waiting": "dim", "finished": ""}


def lines_of(rows: Sequence[Row], width: int, height: int) -> list[tuple[str, str]]:
    """(line, state) for each job, at most `height`; the last one counts where some are left out."""
    shown = list(rows)
    room = max(1, height - 1)
    if len(shown) > room:
        chosen = sorted(rows, key=lambda row: (TOP.index(row.state) if row.state in TOP else 0, row.number))[:room]
        shown = [row for row in rows if row in chosen]
    name = shown[0].metric if shown and shown[0].metric else "reward"
    digits = max((len(str(row.number)) for row in shown), default=1)
    steps = max((len(_steps(row)) for row in shown), default=1)
    lines = [(fitted(_line(row, digits, steps, narrow=width < NARROW), width), row.state) for row in shown]
    return [*lines, (fitted(f"{counted(rows)}; values: {name}", width), "waiting")]


def _line(row: Row, digits: int, steps: int, *, narrow: bool) -> str:
    if narrow:
        done = f"{row.number:>{digits}} {row.state[:4]} {_steps(row):>{steps}} {number(row.value):>5}"
        return f"{done} {one_line(row.words)}"
    spent = duration(row.seconds) if row.seconds else ""
    done = f"{row.number:>{digits}} {row.state:<8} {_steps(row):>{steps}} {number(row.value):>7} {spent:>7}"
    return f"{done}  {one_line(row.words)}"


def _steps(row: Row) -> str:
    return f"{row.step}/{row.max_steps or '?'}"


def _value(row: Row) -> str:
    name = row.metric or next((one for one in DEFAULT_METRICS if one in row.values), "reward")
    return f"{name} {number(row.value)}"


def counted(rows: Sequence[Row]) -> str:
    """ "2 running, 1 failed, 3 waiting" """
    states = [row.state for row in rows]
    return ", ".join(f"{states.count(one)} {one}" for one in TOP if one in states)


def fitted(line: str, width: int) -> str:
    return line if cell_len(line) <= width else set_cell_size(line, max(1, width - 1)) + "…"


@contextmanager
def opened(rows: Sequence[Row]) -> Iterator[SweepDisplay]:
    """On stdout, whatever it is."""
    if not can_redraw():
        yield SweepDisplay(rows, PlainScreen())
        return
    from rich.console import Console
    from rich.live import Live

    console = Console(force_terminal=True, highlight=False, markup=False, emoji=False, legacy_windows=False)
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        console.show_cursor(True)  # a killed process cannot bring it back
        yield SweepDisplay(rows, LiveScreen(live, console))


def line_width() -> int:
    return shutil.get_terminal_size((80, 24)).columns if sys.stdout.isatty() else FILE_COLUMNS


def _print(text: str) -> None:
    """Whoever reads may go away (`| head`): the jobs go on without them."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        print(text.encode(encoding, "replace").decode(encoding), flush=True)
    except (OSError, ValueError):
        drop_output()


def as_rows(states: Sequence[JobState], words: Mapping[int, str]) -> list[Row]:
    return [row_of(one, words[one.job.number]) for one in states]
