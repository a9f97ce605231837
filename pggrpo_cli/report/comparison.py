"""Several runs side by side: curves of each group over its seeds, and a table at equal samples and at equal time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pggrpo_cli.report.axis import time_unit
from pggrpo_cli.report.buckets import MAX_POINTS, bucketed, thinned
from pggrpo_cli.report.chart import COLOURS, Chart, Line
from pggrpo_cli.report.grouping import Group, run_label
from pggrpo_cli.report.intervals import Interval, interval_over_seeds, moving, over_seeds, window_of
from pggrpo_cli.report.metrics_file import Series
from pggrpo_cli.report.run import HELD_OUT, MAIN_METRICS, Run

AMOUNTS = {"completions": "completions", "num_tokens": "tokens", "seconds": "training time"}
"""What runs may be compared at equal of, and its words."""
CURVES: tuple[tuple[str, str, bool], ...] = (
    ("reward", "Reward in training", False),
    ("kl", "KL to the policy before training", False),
    ("entropy", "Entropy, nats a token", False),
    ("clip_ratio/region_mean", "Clipped ratios", True),
    ("ratio/clamped_fraction", "Ratios clamped before exp", True),
    ("ratio/max", "Largest importance ratio", False),
    ("rewards/accuracies", "Pairs ranked right", True),
    ("rewards/margins", "Margin of DPO’s implicit rewards", False),
    ("completions/mean_length", "Tokens of a completion", False),
    ("completions/clipped_ratio", "Completions cut by max_new_tokens", True),
    ("frac_reward_zero_std", "Groups without signal", True),
    ("grad_norm", "Gradient norm, before clipping", False),
    ("learning_rate", "Learning rate", False),
    ("loss", "Loss", False),
    ("step_time", "Seconds of a step", False),
    ("tokens_per_second", "Completion tokens a second", False),
    ("memory/peak_gb", "Peak memory, GB", False),
)
POINTS = 720
"""Of a chart, for all of its groups together: what keeps the page small."""
MOST_LINES = 40
"""Of the chart of every run."""
SMOOTHED = ("reward", "rewards/accuracies", "loss")


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A group in the table."""

    group: Group
    first: Interval
    last: Interval
    best: Interval
    """Each run's own best: of many evaluations, so a little flattering."""
    at_equal: dict[str, Interval]
    """By amount."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    metric: str
    groups: tuple[Group, ...]
    standings: tuple[Standing, ...]
    """The best first: by the value at equal completions, else by the last one."""
    limits: dict[str, float]
    """By amount: what every run counted has reached. Runs that broke off are left out as long as others are there."""
    charts: tuple[Chart, ...]

    @property
    def shown(self) -> tuple[Group, ...]:
        """Those that the charts show: as many as there are colours, the best."""
        best = [one.group.label for one in self.standings[:COLOURS]]
        return tuple(group for group in self.groups if group.label in best)


def compare(groups: Sequence[Group]) -> Comparison:
    runs = [run for group in groups for run in group.complete]
    metric = _metric([run for group in groups for run in group.runs])
    limits = {amount: _limit(runs, metric, amount) for amount in AMOUNTS}
    standings = sorted((_standing(group, metric, limits) for group in groups), key=_rank)
    made = Comparison(metric=metric, groups=tuple(groups), standings=tuple(standings), limits=limits, charts=())
    shown = made.shown
    charts = [_at_equal(shown, metric, amount, limits[amount]) for amount in AMOUNTS]
    if any(len(group.runs) > 1 for group in shown):
        points = _points(min(MOST_LINES, sum(len(group.runs) for group in shown)))
        lines = [line for colour, group in enumerate(shown) for line in seed_lines(group, metric, colour, points)]
        charts.append(Chart(title=f"{_title(metric)} of every run", lines=tuple(lines[:MOST_LINES])))
    names = [(name, title, percent) for name, title, percent in CURVES if name != metric or metric in SMOOTHED]
    charts += [_over_steps(shown, name, title, percent) for name, title, percent in names]
    charts += [_over_steps(shown, name, f"{name} (unweighted)", False) for name in _terms(runs)]
    return Comparison(
        metric=metric, groups=tuple(groups), standings=tuple(standings), limits=limits,
        charts=tuple(chart for chart in charts if any(line.known for line in chart.lines)),
    )  # fmt: skip


def curve_of(run: Run, metric: str) -> Series:
    """What is compared of a run: its evaluations, or the moving mean of a metric that every step logs."""
    series = run.metrics.get(metric).finite()
    if metric not in SMOOTHED or len(series) < 5:
        return series
    return Series(series.steps, moving(series.values, window_of(len(series)))[0])


def value_at(run: Run, metric: str, amount: str, limit: float) -> float:
    """The run's curve where it had spent `limit`, between two evaluations on the straight line; NaN if it never had."""
    series = curve_of(run, metric)
    if not len(series):
        return np.nan
    spent = run.amount_at(amount, series.steps)
    if not np.isfinite(spent).all() or limit < spent[0] or limit > spent[-1] * (1 + 1e-9):
        return np.nan
    return float(np.interp(limit, spent, series.values))


def _metric(runs: Sequence[Run]) -> str:
    """One that all runs can be compared by."""
    for name in (HELD_OUT, *MAIN_METRICS):
        having = [run for run in runs if run.metrics.has(name)]
        if len(having) == len(runs) or (having and name == HELD_OUT):
            return name
    return next((name for name in MAIN_METRICS if any(run.metrics.has(name) for run in runs)), "reward")


def _terms(runs: Sequence[Run]) -> list[str]:
    names = dict.fromkeys(name for run in runs for name in run.metrics.series)
    found = [name for name in names if name.startswith("rewards/") and name.endswith("/mean")]
    return found[:COLOURS] if len(found) > 1 else []


def _limit(runs: Sequence[Run], metric: str, amount: str) -> float:
    reached = []
    for run in runs:
        steps = curve_of(run, metric).steps
        if len(steps) and steps[-1] > 0:
            reached.append(float(run.amount_at(amount, steps[-1:])[0]))
    known = [value for value in reached if np.isfinite(value) and value > 0]
    return min(known) if known else np.nan


def _standing(group: Group, metric: str, limits: dict[str, float]) -> Standing:
    curves = [curve_of(run, metric) for run in group.runs]
    sign = min if metric == "loss" else max
    return Standing(
        group=group,
        first=interval_over_seeds([one.values[0] for one in curves if len(one)]),
        last=interval_over_seeds([one.values[-1] for one in curves if len(one)]),
        best=interval_over_seeds([sign(one.values) for one in curves if len(one)]),
        at_equal={
            amount: interval_over_seeds([value_at(run, metric, amount, limit) for run in group.runs])
            for amount, limit in limits.items()
        },
    )


def _rank(standing: Standing) -> float:
    value = standing.at_equal["completions"].value
    value = standing.last.value if np.isnan(value) else value
    return np.inf if np.isnan(value) else -value


def _at_equal(groups: Sequence[Group], metric: str, amount: str, limit: float) -> Chart:
    """The compared metric over what was spent, as far as every run counted has come."""
    unit, words = time_unit(limit) if amount == "seconds" and np.isfinite(limit) else (1.0, AMOUNTS[amount])
    lines: list[Line] = []
    for colour, group in enumerate(groups):
        curves = []
        for run in group.complete:
            series = curve_of(run, metric)
            spent = run.amount_at(amount, series.steps)
            if len(series) and np.isfinite(spent).all():
                curves.append(Series(spent, series.values))
        lines += _group_lines(group, curves, colour, unit, _points(len(groups)))
    return Chart(
        title=f"{_title(metric)} at equal {AMOUNTS[amount]}", lines=tuple(lines), x_label=words, note=_note(groups, metric),
        marks=((limit / unit, "all reached"),) if np.isfinite(limit) else (),
    )  # fmt: skip


def _over_steps(groups: Sequence[Group], name: str, title: str, percent: bool) -> Chart:
    lines: list[Line] = []
    for colour, group in enumerate(groups):
        curves = [curve for run in group.complete if len(curve := curve_of(run, name))]
        lines += _group_lines(group, curves, colour, 1.0, _points(len(groups)))
    note = _note(groups, name) if name in SMOOTHED else ""
    return Chart(title=title, lines=tuple(lines), percent=percent, note=note)


def _group_lines(group: Group, curves: Sequence[Series], colour: int, unit: float, points: int) -> list[Line]:
    """The group's middle and its interval as far as all of its runs reach; beside it, faintly, each run."""
    curves = [one for one in curves if len(one)]
    if not curves:
        return []
    if len(curves) == 1:
        one = bucketed(curves[0].steps, curves[0].values, points)
        return [Line(label=group.label, x=one.x / unit, y=one.mean, colour=colour)]
    start = max(float(one.steps[0]) for one in curves)
    end = min(float(one.steps[-1]) for one in curves)
    grid = np.unique(np.concatenate([one.steps for one in curves]))
    grid = grid[(grid >= start) & (grid <= end)]
    grid = grid[thinned(len(grid), points)]
    lines = []
    if len(grid):
        middle, low, high = over_seeds(np.stack([np.interp(grid, one.steps, one.values) for one in curves]))
        label = f"{group.label}, {len(curves)} seeds"
        lines.append(Line(label=label, x=grid / unit, y=middle, low=low, high=high, colour=colour))
    return lines


def _points(lines: int) -> int:
    return min(MAX_POINTS, POINTS // max(lines, 1))


def seed_lines(group: Group, metric: str, colour: int, points: int) -> list[Line]:
    """Each run's own curve over its steps."""
    found = []
    for run in group.runs:
        series = curve_of(run, metric)
        if len(series):
            shown = bucketed(series.steps, series.values, points)
            label = f"{group.label}, {run_label(run, group)}" if len(group.runs) > 1 else group.label
            found.append(Line(label=label, x=shown.x, y=shown.mean, colour=colour))
    return found


def _title(metric: str) -> str:
    return {HELD_OUT: "Held-out reward", "reward": "Reward", "loss": "Loss"}.get(metric, metric)


def _note(groups: Sequence[Group], metric: str) -> str:
    words = ["each run’s moving mean"] if metric in SMOOTHED else []
    if any(len(group.complete) > 1 for group in groups):
        words.append("interquartile mean over seeds with its 95 % bootstrap interval")
    return "; ".join(words)
