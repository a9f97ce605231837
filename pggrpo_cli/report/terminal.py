"""The essentials of a report in a terminal: of one run its panel and completions, of several a table."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from pggrpo_cli.display.chart import area, columns
from pggrpo_cli.display.panel import panel
from pggrpo_cli.display.run_view import RunView, number
from pggrpo_cli.errors import PggrpoError
from pggrpo_cli.printable import one_line, printable
from pggrpo_cli.report import headline
from pggrpo_cli.report.chosen import over_time
from pggrpo_cli.report.comparison import AMOUNTS, Comparison, Standing, compare, curve_of
from pggrpo_cli.report.grouping import grouped
from pggrpo_cli.report.intervals import Interval
from pggrpo_cli.report.run import HELD_OUT, MAIN_METRICS, Run
from pggrpo_cli.report.settings import from_defaults
from pggrpo_cli.report.visible import shortened

PANEL_LINES = 40
LONGEST = 300
"""Characters of a completion."""
NARROW = 90
"""Below this a table of several runs stands a group below the other."""


def show(runs: Sequence[Run]) -> None:
    """Prints; colours where they are wanted, characters that stdout's encoding lacks as question marks."""
    console = Console(highlight=False, markup=False, emoji=False, legacy_windows=False)
    with console.capture() as captured:
        for part in _one(runs[0], console.width) if len(runs) == 1 else _several(runs, console.width):
            console.print(part)
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(captured.get().encode(encoding, "replace").decode(encoding))


def _one(run: Run, width: int) -> list[RenderableType]:
    from pggrpo_cli.run_directory import resume_command

    parts: list[RenderableType] = [Text(printable(headline.of_run(run)), style="bold"), Text()]
    parts.append(panel(view_of(run), width, PANEL_LINES))
    parts += [Text(printable(words), style="yellow") for words in run.problems]
    if run.config:
        parts += [Text(), *_configuration(run)]
    for step, chosen in over_time(run, 2)[-1 if width < NARROW else -2 :]:
        parts += [Text(), Text(f"step {step}", style="bold")]
        for why, one in chosen:
            parts.append(Text(f"{why}: reward {number(one.reward)}, advantage {number(one.advantage)}", style="dim"))
            parts.append(Text(one_line(shortened(one.completion, LONGEST)) or "(nothing)"))
    if run.state == "stopped" and run.config and run.checkpoints:
        parts += [Text(), Text(f"to go on: {resume_command(run.config, run.path)}")]
    return parts


def view_of(run: Run) -> RunView:
    """The run as the live display would show it now."""
    total = float(np.nansum(run.metrics.get("step_time").values) + np.nansum(run.metrics.get("time/evaluation").values))
    clock = iter([0.0])
    view = RunView(lambda: next(clock, total))
    view.start(run.max_steps, str(run.config.get("name") or run.name))
    for name, series in run.metrics.series.items():
        known = series.finite()
        if name in (*MAIN_METRICS, HELD_OUT):
            view.history[name] = [(int(step), value) for step, value in zip(known.steps, known.values, strict=True)]
        if len(known) and (not name.startswith("time/") or known.steps[-1] == run.metrics.last_step):
            view.latest[name] = float(known.values[-1])
    view.step = run.metrics.last_step
    steps = run.samples.steps(held_out=False)
    last = run.samples.read(steps[-1], held_out=False) if steps else []
    if last and last[0].reward is not None:
        view.sample = (last[0].prompt, last[0].completion, last[0].reward)
    return view


def _configuration(run: Run) -> list[Text]:
    """What was chosen and what differs from the defaults, a key a line."""
    try:
        choices, changed = from_defaults(run.config)
    except PggrpoError as error:
        return [Text(printable(f"the defaults cannot be composed: {error}"), style="yellow")]
    lines = [
        Text.assemble(
            ("differs from the defaults: ", "dim"), printable(" ".join(choices)) or ("" if changed else "nothing")
        )
    ]
    lines += [Text.assemble("  ", printable(one.key), ("=", "dim"), printable(one.values[1]),
                            (f"  (default {printable(one.values[0])})", "dim")) for one in changed]  # fmt: skip
    return lines


def _several(runs: Sequence[Run], width: int) -> list[RenderableType]:
    comparison = compare(grouped(runs))
    parts: list[RenderableType] = [Text(printable(headline.of_comparison(comparison)), style="bold"), Text()]
    parts.append(_list(comparison, width) if width < NARROW else _table(comparison, width))
    parts += [Text(), *(_state_line(run) for run in runs)]
    return parts


def _table(comparison: Comparison, width: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(headline.WORDS.get(comparison.metric, comparison.metric), overflow="fold")
    table.add_column("runs", justify="right")
    limit = comparison.limits["completions"]
    spent = f"{limit:,.0f}" if limit == limit else "equal"
    table.add_column(f"after {spent} {AMOUNTS['completions']}", no_wrap=True)
    table.add_column("at first", no_wrap=True)
    table.add_column("at last", no_wrap=True)
    table.add_column("course", no_wrap=True)
    for one in comparison.standings:
        table.add_row(
            Text(printable(one.group.label) or "all runs"), str(len(one.group.runs)), _words(one.at_equal["completions"]),
            number(None if one.first.value != one.first.value else one.first.value), _words(one.last),
            Text(_spark(one, comparison.metric, max(8, width // 7)), style="green"),
        )  # fmt: skip
    return table


def _list(comparison: Comparison, width: int) -> Group:
    lines: list[RenderableType] = []
    for one in comparison.standings:
        lines.append(Text(f"{printable(one.group.label) or 'all runs'} ({len(one.group.runs)})", style="bold"))
        lines.append(Text(f"  equal completions {_words(one.at_equal['completions'])}"))
        lines.append(Text(f"  at last {_words(one.last)}"))
        lines.append(Text(f"  {_spark(one, comparison.metric, max(8, width - 4))}", style="green"))
    return Group(*lines)


def _spark(standing: Standing, metric: str, width: int) -> str:
    """The first run's curve."""
    series = curve_of(standing.group.runs[0], metric)
    points = [
        (max(1, int(step)), value) for step, value in zip(series.steps.tolist(), series.values.tolist(), strict=True)
    ]
    total = int(series.steps[-1]) if len(series) else 1
    (row,) = area(columns(points, total, width), 1)
    return row


def _state_line(run: Run) -> Text:
    style = {"finished": "dim", "running": "green", "stopped": "yellow", "failed": "red"}[run.state]
    return Text.assemble(printable(run.name), "  ", (headline.status(run), style))


def _words(interval: Interval) -> str:
    if interval.value != interval.value:
        return "–"
    spread = f" [{number(interval.low)}, {number(interval.high)}]" if interval.low == interval.low else ""
    return f"{number(interval.value)}{spread}"
