"""How far the jobs of a sweep are, read from their folders: while it runs, after a crash, whoever ran it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pggrpo_cli import run_directory as runs
from pggrpo_cli.errors import CheckpointError, ConfigError
from pggrpo_cli.json_file import read_object
from pggrpo_cli.report.metrics_file import Metrics, read_metrics
from pggrpo_cli.report.places import by_number, find_runs, is_run
from pggrpo_cli.report.run import State, is_at_work, overrides_of, state_of
from pggrpo_cli.suggestions import did_you_mean
from pggrpo_cli.sweep.jobs import Job
from pggrpo_cli.sweep.record import SWEEP, Record, read_record

DEFAULT_METRICS = ("eval/reward", "reward")
TIMES = ("step_time", "time/evaluation")
"""The time of a job is the sum of these over all its sessions: what is on disk of it, whoever looks and when."""


@dataclass(frozen=True, kw_only=True)
class JobState:
    """A job as its folder shows it."""

    job: Job
    path: Path
    state: State | Literal["waiting"]
    """Those of a run, and waiting: nothing of it is there."""
    metrics: Metrics
    failure: dict[str, Any]

    @property
    def step(self) -> int:
        return self.metrics.last_step

    @property
    def max_steps(self) -> int | None:
        steps = (self.job.config.get("trainer") or {}).get("max_steps")
        return steps if isinstance(steps, int) else None

    @property
    def metric(self) -> str | None:
        """sweep.metric."""
        return (self.job.config.get("sweep") or {}).get("metric")

    @property
    def minimises(self) -> bool:
        return (self.job.config.get("sweep") or {}).get("direction") == "minimize"

    @property
    def objective(self) -> float | None:
        """What a sweeper is told; None if nothing of that name was logged, or no number."""
        return objective_of(self.metrics, self.metric)

    @property
    def seconds(self) -> float | None:
        """TIMES so far; None before the first step."""
        spent = [self.metrics.get(name).finite().values for name in TIMES]
        return float(sum(values.sum() for values in spent)) if len(spent[0]) else None


def objective_of(metrics: Metrics, metric: str | None) -> float | None:
    """The last value of `metric`; of eval/reward, else reward, if there is no wish."""
    for name in DEFAULT_METRICS if metric is None else (metric,):
        series = metrics.get(name)
        if len(series):
            value = float(series.values[-1])
            return None if math.isnan(value) else value
    return None


def state_of_job(job: Job, path: Path) -> JobState:
    failure = read_object(path / runs.ERROR)
    state: State | Literal["waiting"] = "waiting"
    if is_run(path):
        state = state_of(path, failed=bool(failure))
    elif path.is_dir() and is_at_work(path):
        state = "running"
    metrics = read_metrics(path / runs.METRICS)
    return JobState(job=job, path=path, state=state, metrics=metrics, failure=failure)


def states_of(record: Record) -> list[JobState]:
    return [state_of_job(job, record.folder(job)) for _, job in sorted(record.jobs.items())]


def read_states(path: Path) -> list[JobState]:
    """Of the sweep in `path`; one without a record (an earlier release wrote none) is known by its jobs' folders. Raises
    UsageError if there is neither."""
    if (path / SWEEP).is_file() or not path.is_dir() or is_run(path):
        return states_of(read_record(path)) or found_states(path)
    find_runs([str(path)], "sweep status")
    return found_states(path)


def found_states(path: Path) -> list[JobState]:
    """Of the runs whose folders lie right in `path`."""
    below = sorted((one for one in path.iterdir() if one.is_dir() and is_run(one)), key=by_number)
    return [_without_record(place, one) for place, one in enumerate(below)]


def _without_record(place: int, path: Path) -> JobState:
    try:
        config = runs.read_config(path)
    except CheckpointError:
        config = {}
    number = int(path.name) if path.name.isdecimal() else place
    return state_of_job(Job(number=number, folder=path.name, overrides=overrides_of(path), config=config), path)


def ranked(states: Sequence[JobState]) -> list[JobState]:
    """The best first; behind them those that failed, and those without a number."""

    def worth(one: JobState) -> tuple[bool, float]:
        value = one.objective
        return one.state != "failed", -np.inf if value is None else -value if one.minimises else value

    return sorted(states, key=worth, reverse=True)


def refuse_unknown_metric(states: Sequence[JobState]) -> None:
    """Raises ConfigError if sweep.metric was logged by none of the jobs that came to an end."""
    done = [one for one in states if one.state == "finished" or one.step]
    wished = next((one.metric for one in done), None)
    if wished is None or any(len(one.metrics.get(wished)) for one in done):
        return
    there = sorted({name for one in done for name in one.metrics.series})
    raise ConfigError(
        f"`sweep.metric`: no job logged {wished}.{did_you_mean(wished, there)} There were: {', '.join(there)}. The runs "
        "are as they should be; only their order is missing."
    )
