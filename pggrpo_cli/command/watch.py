"""pggrpo watch: follow a run from another shell, as its own terminal shows it: pggrpo watch [RUN]."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pggrpo_cli import run_directory as runs
from pggrpo_cli.errors import CheckpointError, UsageError
from pggrpo_cli.following import Following

if TYPE_CHECKING:
    from pggrpo_cli.display.run_view import RunView
    from pggrpo_cli.logger.console import Display

HELP = """\
usage: pggrpo watch [RUN]

Shows the run in the directory RUN as its own terminal does, step by step while it goes on. Without RUN: the newest run below
outputs/. Ends when no process works in the directory any more; Ctrl-C ends it too, and never the run.

example: pggrpo watch outputs/2026-11-23/12-00-00-train-1a2b3c
"""
INTERVAL_S = 0.5
"""Between two looks at the files."""
LOOKS_A_PROBE = 4
"""Whether the run is still at work is asked only at every so many: it means to try its lock."""
SAMPLES_BYTES = 1 << 20
"""Of samples.jsonl, what is read of the past."""


def main(arguments: list[str]) -> int:
    if any(word in ("-h", "--help") for word in arguments):
        print(HELP, end="")
        return 0
    for word in arguments:
        if word.startswith("-"):
            raise UsageError(f"`{word}`: there is no such option. See pggrpo watch --help.")
    if len(arguments) > 1:
        raise UsageError(f"`{arguments[1]}`: one run is watched at a time: pggrpo watch RUN.")
    from pggrpo_cli.report.places import find_runs, newest_run

    if not arguments:
        run_dir = newest_run("watch")
        print(f"watching {run_dir}")
    else:
        found = find_runs(arguments, "watch")
        if len(found) > 1:
            raise UsageError(f"{arguments[0]} holds {len(found)} runs; one is watched at a time, such as {found[-1]}.")
        (run_dir,) = found
    try:
        watch(run_dir)
    except KeyboardInterrupt:
        return 0
    return 0


def watch(run_dir: Path) -> None:
    """Returns when no process works in `run_dir` and everything it wrote is shown."""
    from pggrpo_cli.display.run_view import RunView
    from pggrpo_cli.logger.console import open_display
    from pggrpo_cli.report.run import is_at_work

    clock = RunClock()
    view = RunView(clock)
    with open_display(view, "auto", samples=True) as display:
        steps, name = _plan(run_dir)
        display.start(steps, name)
        follower = Follower(run_dir, display, view, clock)
        follower.catch_up()
        look = 0
        at_work = is_at_work(run_dir)
        while at_work:
            display.phase(f"step {view.step + 1}" if view.step < steps else "the end")
            time.sleep(INTERVAL_S)
            look += 1
            if look % LOOKS_A_PROBE == 0:
                at_work = is_at_work(run_dir)  # before the files are read: what is written until it ends is shown
            follower.look()
        display.message(_ending(run_dir, view.step))


class RunClock:
    """Seconds of the run: those of the steps that are past, then real ones."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._ahead = -now()
        self._held: float | None = 0.0

    def __call__(self) -> float:
        return self._held if self._held is not None else self._now() + self._ahead

    def spend(self, seconds: float) -> None:
        """Time that passed before anybody watched."""
        assert self._held is not None
        self._held += seconds

    def go(self) -> None:
        """From here on real time passes."""
        assert self._held is not None
        self._ahead, self._held = self._held - self._now(), None


class Follower:
    """Tells a display what a run writes."""

    def __init__(self, run_dir: Path, display: Display, view: RunView, clock: RunClock) -> None:
        self._metrics = Following(run_dir / runs.METRICS)
        self._samples = Following(run_dir / runs.SAMPLES, last_bytes=SAMPLES_BYTES)
        self._display, self._view, self._clock = display, view, clock
        self._sampled: Any = None

    def catch_up(self) -> None:
        """Everything written so far, each step in the time it took: so the display knows the run's pace."""
        newest: tuple[int, dict[str, float | None]] | None = None
        for record in self._metrics.new():
            step, metrics = _numbers(record)
            if step is None:
                continue
            if newest is not None:
                self._view.log(*newest)
            self._clock.spend((metrics.get("step_time") or 0.0) + (metrics.get("time/evaluation") or 0.0))
            newest = step, metrics
        if newest is not None:
            self._display.log(*newest)
        self._show_samples()
        self._clock.go()

    def look(self) -> None:
        """What is new."""
        for record in self._metrics.new():
            step, metrics = _numbers(record)
            if step is not None:
                self._display.log(step, metrics)
        self._show_samples()

    def _show_samples(self) -> None:
        """Of each step the first completion, as the trainer shows it."""
        for record in self._samples.new():
            if record.get("held_out") is True or record.get("step") == self._sampled:
                continue
            prompt, completion, reward = (record.get(name) for name in ("prompt", "completion", "reward"))
            if isinstance(prompt, str) and isinstance(completion, str) and isinstance(reward, int | float):
                self._sampled = record.get("step")
                self._display.sample(prompt, completion, float(reward))


def _numbers(record: dict[str, Any]) -> tuple[int | None, dict[str, float | None]]:
    step = record.pop("step", None)
    metrics: dict[str, float | None] = {}
    for name, value in record.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            metrics[name] = float(value) if math.isfinite(value) else None
        elif value is None:
            metrics[name] = None
    return (step if isinstance(step, int) else None), metrics


def _plan(run_dir: Path) -> tuple[int, str]:
    """(steps of the run, its name)"""
    try:
        config = runs.read_config(run_dir)
    except CheckpointError as error:
        raise UsageError(f"{error} There is nothing to watch.") from error
    return int(config["trainer"]["max_steps"]), str(config.get("name") or run_dir.name)


def _ending(run_dir: Path, step: int) -> str:
    if runs.is_finished(run_dir):
        return f"{run_dir} is finished, after step {step}"
    words = f"{run_dir} stopped after step {step}; nothing works on it"
    if runs.has_checkpoints(run_dir):
        words += f". To go on: {runs.resume_command(runs.read_config(run_dir), run_dir)}"
    return words
