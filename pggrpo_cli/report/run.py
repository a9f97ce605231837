"""A run as a reader finds it: finished, going on, stopped, failed, or hardly begun."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

from pggrpo_cli import run_directory as runs
from pggrpo_cli.errors import CheckpointError
from pggrpo_cli.json_file import read_object
from pggrpo_cli.report.metrics_file import Floats, Metrics, Series, read_metrics
from pggrpo_cli.report.samples_file import Samples

State = Literal["finished", "running", "stopped", "failed"]
HELD_OUT = "eval/reward"
MAIN_METRICS = ("reward", "rewards/accuracies", "loss")
"""Without held-out rewards a run is told by the first of these that varies: the rewards of a data set's own pairs never do."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """Everything that a report reads of one run directory. Nothing is ever written there."""

    path: Path
    name: str
    """The folder's, with as much of the path as tells it from the others."""
    config: dict[str, Any]
    """Empty if it cannot be read."""
    overrides: tuple[str, ...]
    environment: dict[str, Any]
    state: State
    failure: str
    """Of a failed job of a sweep: its error."""
    metrics: Metrics
    samples: Samples
    checkpoints: tuple[int, ...]
    problems: tuple[str, ...]
    """What could not be read, in words."""

    @property
    def started(self) -> str:
        """ISO time of the first session; empty if nothing says it."""
        earlier = self.environment.get("earlier")
        first = earlier[0] if isinstance(earlier, list) and earlier else self.environment
        return str(first.get("time") or "") if isinstance(first, Mapping) else ""

    @property
    def seed(self) -> Any:
        return self.config.get("seed")

    @property
    def max_steps(self) -> int:
        """What trainer.max_steps says; without a configuration, how far the run has come."""
        steps = self.setting("trainer.max_steps")
        return steps if isinstance(steps, int) else self.metrics.last_step

    @property
    def main_metric(self) -> str:
        """Whose course tells the run: the held-out reward if there is one."""
        if self.metrics.has(HELD_OUT):
            return HELD_OUT
        present = [name for name in MAIN_METRICS if self.metrics.has(name)]
        varying = [name for name in present if np.ptp(self.metrics.get(name).finite().values) > 0]
        return next(iter(varying or present), MAIN_METRICS[0])

    def setting(self, key: str) -> Any:
        """A value of the configuration by its dotted key; None if it is not there."""
        found: Any = self.config
        for part in key.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        return found

    @cached_property
    def seconds(self) -> Series:
        """At each step, the seconds of training up to its end: the sum of step_time, without evaluations and checkpoints."""
        return _added_up(self.metrics.get("step_time"))

    @cached_property
    def completions(self) -> Series:
        """At each step, the completions scored up to its end: counted in samples.jsonl; steps that are missing there by the
        configuration."""
        steps = self.metrics.get("step_time").steps
        prompts, group = self.setting("trainer.prompts_per_step"), self.setting("sampler.group_size")
        usual = prompts * group if isinstance(prompts, int) and isinstance(group, int) else 0
        counts = [self.samples.count(int(step), held_out=False) or usual for step in steps]
        return _added_up(Series(steps, np.array(counts, dtype=float)))

    def amount_at(self, amount: str, steps: Floats) -> Floats:
        """Of "step", "completions", "num_tokens" or "seconds" what the run had spent at the end of `steps`; step 0: none."""
        if amount == "step":
            return steps
        named = {"completions": self.completions, "seconds": self.seconds}
        series = (named.get(amount) or self.metrics.get(amount)).finite()
        if not len(series):
            return np.full(len(steps), np.nan)
        return np.interp(steps, np.concatenate([[0.0], series.steps]), np.concatenate([[0.0], series.values]))

    def best(self) -> tuple[int, float, str] | None:
        """(step, value, metric) of the best by checkpoint.keep_best, else of the highest held-out reward; the first of equals."""
        name, _, direction = str(self.setting("checkpoint.keep_best") or "").partition(":")
        if not self.metrics.has(name):
            name, direction = HELD_OUT, "max"
        series = self.metrics.get(name).finite()
        if not len(series):
            return None
        place = int(series.values.argmin() if direction == "min" else series.values.argmax())
        return int(series.steps[place]), float(series.values[place]), name


def read_run(path: Path, name: str) -> Run:
    """Reads whatever is there; what is broken is said in `problems`."""
    problems: list[str] = []
    config: dict[str, Any] = {}
    try:
        config = runs.read_config(path)
    except CheckpointError as error:
        problems.append(str(error).replace(f"{path}/", "").replace(str(path), "the folder"))
    metrics = read_metrics(path / runs.METRICS)
    if metrics.unreadable:
        lines = "line" if metrics.unreadable == 1 else "lines"
        problems.append(f"{metrics.unreadable} {lines} of {runs.METRICS} could not be read")
    failure = read_object(path / runs.ERROR)
    return Run(
        path=path,
        name=name,
        config=config,
        overrides=overrides_of(path),
        environment=read_object(path / runs.ENVIRONMENT),
        state=state_of(path, failed=bool(failure)),
        failure=str(failure.get("error") or ""),
        metrics=metrics,
        samples=Samples(path / runs.SAMPLES),
        checkpoints=_checkpoints(path),
        problems=tuple(problems),
    )


def is_at_work(path: Path) -> bool:
    """Whether a process works in the directory now. Where its lock may not be touched, by what the process left there."""
    try:
        return runs.is_locked(path)
    except OSError:
        owner = read_object(path / runs.OWNER)
        pid = owner.get("pid")
        return isinstance(pid, int) and (owner.get("host") != socket.gethostname() or _lives(pid))


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def state_of(path: Path, *, failed: bool) -> State:
    if is_at_work(path):
        return "running"
    if failed:
        return "failed"
    return "finished" if runs.is_finished(path) else "stopped"


def overrides_of(path: Path) -> tuple[str, ...]:
    """What was typed for the run in `path`; empty if nothing says it."""
    try:
        words = yaml.safe_load((path / runs.OVERRIDES).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return ()
    return tuple(str(word) for word in words) if isinstance(words, list) else ()


def _checkpoints(path: Path) -> tuple[int, ...]:
    """Steps of the whole ones."""
    found = (
        re.fullmatch(r"step-(\d{1,18})", file.parent.name) for file in path.glob("checkpoints/step-*/manifest.json")
    )
    return tuple(sorted(int(match[1]) for match in found if match))


def _added_up(series: Series) -> Series:
    return Series(series.steps, np.cumsum(np.nan_to_num(series.values)))
