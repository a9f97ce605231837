"""pggrpo resume: go on with a run where it stopped, in its own directory: pggrpo resume RUN [key=value …]."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pggrpo_cli import run_directory as runs
from pggrpo_cli.errors import CheckpointError, ConfigError, RunLockedError, UsageError
from pggrpo_cli.run_overrides import parse_overrides, refuse_targets, set_key
from pggrpo_cli.suggestions import nearest

HELP = f"""\
usage: pggrpo resume RUN [--config-dir DIR] [key=value …]

Goes on with the run in the directory RUN, bit for bit as if it had never stopped. Free to change are
{", ".join(runs.MAY_CHANGE[3:])},
and what resume.allow_changed=[key,…] lists. A run's configuration is read from disk, and so may name pggrpo's own
parts only; security.allow_targets=[prefix,…] adds yours, such as my_package or pggrpo_cli.reward.python, and servers that
get the value of an environment variable or are on another machine. Modules of yours are looked for here and in DIR.
A new trainer.max_steps stretches the schedule of the learning rate: what was done stays as it was, what comes is not what
a run of that length would have done.

example: pggrpo resume outputs/2026-11-23/12-00-00-train-1a2b3c trainer.max_steps=100
"""


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(HELP, end="")
        return 0 if arguments else 2
    folders = [os.getcwd()]
    for option in ("--config-dir", "-cd"):
        if option in arguments[:-1]:
            place = arguments.index(option)
            folders.append(os.path.abspath(arguments[place + 1]))
            arguments = arguments[:place] + arguments[place + 2 :]
    sys.path += [folder for folder in folders if folder not in sys.path]
    if not arguments or arguments[0].startswith("-") or "=" in arguments[0]:
        word = arguments[0] if arguments else "pggrpo resume"
        raise UsageError(f"`{word}`: the directory of the run comes first: pggrpo resume RUN [key=value …].")
    resume(arguments[0], arguments[1:])
    return 0


def resume(run: str | Path, overrides: Sequence[str] = ()) -> float | None:
    """Goes on with the run in the directory `run`; the same as `pggrpo resume` from Python. Returns like train."""
    run_dir = _find(Path(run).expanduser())
    values = runs.read_config(run_dir)
    step = runs.finished_step(run_dir)
    if step is not None and all(key.partition(".")[0] in ("resume", "security") for key in parse_overrides(overrides)):
        by_target = step < values["trainer"]["max_steps"]
        more = "trainer.target_reward=null" if by_target else f"trainer.max_steps={2 * step}"
        print(f"{run_dir} is finished, after step {step}. To go on: pggrpo resume {run_dir} {more}")
        return None
    config = resumed_config(run_dir, values, overrides)
    steps, reached = config["trainer"]["max_steps"], runs.newest_step(run_dir)
    only_the_mark_is_missing = step is None and steps == values["trainer"]["max_steps"]
    if steps < reached or (steps == reached and not only_the_mark_is_missing):
        raise ConfigError(
            f"`trainer.max_steps`: {steps}, and the run is at step {reached} already; give more, such as "
            f"trainer.max_steps={reached + 10}."
        )
    if steps != values["trainer"]["max_steps"] and "constant" not in str(config["scheduler"].get("_target_")):
        print(
            f"trainer.max_steps: {steps} instead of {values['trainer']['max_steps']}; the learning rate's schedule is "
            "stretched to it from here on",
            file=sys.stderr,
        )
    from pggrpo_cli import config as schema
    from pggrpo_cli.data_files import check_files
    from pggrpo_cli.tracking.packages import check_packages
    from pggrpo_cli.training import run_in

    check_packages(config)
    check_files(config)
    return run_in(schema.build(config), run_dir, run_dir, overrides)


def resumed_config(run_dir: Path, values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The run's configuration with the overrides applied and checked. Raises ConfigError or UsageError."""
    from pggrpo_cli.check import check_values

    changes = parse_overrides(overrides)
    config: dict[str, Any] = copy.deepcopy(dict(values))
    for key, value in changes.items():
        set_key(config, key, value)
    allow_changed = changes.get("resume.allow_changed", [])
    # Only what is typed now: a run from elsewhere could allow itself anything.
    allow_targets = changes.get("security.allow_targets", [])
    for key, listed in (("resume.allow_changed", allow_changed), ("security.allow_targets", allow_targets)):
        if not (isinstance(listed, list) and all(isinstance(one, str) for one in listed)):
            raise ConfigError(f"`{key}`: {listed!r} is not a list of text; write {key}=[first,second].")
    check_values(config)
    runs.refuse_changes(values, config, allow_changed, run_dir)
    try:
        refuse_targets(config, allow_targets, typed=[key for key in changes if key.partition(".")[0] == "logger"])
    except ConfigError as error:
        if "security.allow_targets" in str(error):
            error.args = (f"{error} The whole command: {runs.resume_command(config, run_dir)}",)
        raise
    return config


def _find(run: Path) -> Path:
    """The run's directory. Raises CheckpointError if there is none, or nothing to go on from."""
    if (run / "manifest.json").exists():
        raise UsageError(
            f"{run} is one checkpoint; resume takes the run: pggrpo resume {run.parent.parent}. To start a new run "
            f"from this checkpoint: pggrpo train resume.from={run}."
        )
    if not run.is_dir():
        known = [str(file.parent) for file in sorted(Path("outputs").glob("*/*/config.yaml"), reverse=True)]
        near = nearest(str(run), known)
        hint = f" Did you mean {' or '.join(near)}?" if near else f" The newest run is {known[0]}." if known else ""
        raise CheckpointError(f"{run} is no directory.{hint} Give the directory of a run.")
    runs.read_config(run)
    if not runs.has_checkpoints(run):
        if runs.is_locked(run):
            raise RunLockedError(f"{run} is in use and holds no checkpoint yet. Wait for it.")
        raise CheckpointError(f"{run} holds no complete checkpoint; there is nothing to go on from. Start it anew.")
    return run
