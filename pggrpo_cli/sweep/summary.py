"""What a sweep came to: its jobs by what they reached, and configurations over their seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pggrpo_cli import run_directory as runs
from pggrpo_cli.display.run_view import number
from pggrpo_cli.printable import one_line
from pggrpo_cli.report.grouping import grouped
from pggrpo_cli.report.intervals import Interval, interval_over_seeds
from pggrpo_cli.report.run import Run, read_run
from pggrpo_cli.sweep.states import JobState, objective_of, ranked
from pggrpo_cli.sweep.words import shortened, telling


def summary(path: Path, states: Sequence[JobState]) -> str:
    """A line a job, the best first; then a line for each configuration that several seeds ran; then what compares them."""
    where = runs.shown(path)
    metric = states[0].metric if states and states[0].metric else "last eval/reward, else reward"
    lowest = "; the lowest is the best" if states and states[0].minimises else ""
    words = dict(zip((one.job.number for one in states), telling([one.job.overrides for one in states]), strict=True))
    lines = [f"sweep in {where}: {metric}{lowest}"]
    for one in ranked(states):
        unfinished = "" if one.state == "finished" else f" ({one.state})"
        lines.append(
            f"  {number(one.objective):>7}  job {one.job.number}: {one_line(words[one.job.number])}{unfinished}"
        )
    return "\n".join([*lines, *_over_seeds(states), f"compare them: pggrpo report {where}"])


def _over_seeds(states: Sequence[JobState]) -> list[str]:
    """Empty where no configuration was run with several seeds."""
    readable = [one for one in states if one.job.config and one.state != "waiting"]
    found: list[Run] = [read_run(one.path, one.path.name) for one in readable]
    groups = grouped(found) if found else []
    if not any(len(group.runs) > 1 for group in groups):
        return []
    lines = []
    values = []
    labels = shortened([group.label or "all of them" for group in groups])
    for group, label in zip(groups, labels, strict=True):
        complete = group.complete
        reached = [objective_of(run.metrics, readable[0].metric) for run in complete]
        interval = interval_over_seeds([value for value in reached if value is not None])
        values.append(interval.value)
        seeds = "1 seed" if len(complete) == 1 else f"{len(complete)} seeds"
        lines.append(f"  {_words(interval)}  {label} ({seeds})")
    order = sorted(range(len(lines)), key=lambda place: _last_if_unknown(values[place], readable[0].minimises))
    return ["over seeds, interquartile mean and 95 % interval:", *(lines[place] for place in order)]


def _last_if_unknown(value: float, minimises: bool) -> float:
    return float("inf") if value != value else value if minimises else -value


def _words(interval: Interval) -> str:
    if interval.value != interval.value:
        return f"{'–':>7}"
    spread = f" [{number(interval.low)}, {number(interval.high)}]" if interval.low == interval.low else ""
    return f"{number(interval.value):>7}{spread}"
