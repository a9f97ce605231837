"""pggrpo sweep: how far the jobs of a sweep are, or go on with it: pggrpo sweep status DIR, pggrpo sweep resume DIR."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pggrpo_cli.errors import CheckpointError, UsageError
from pggrpo_cli.suggestions import did_you_mean

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from pggrpo_cli.sweep.record import Record
    from pggrpo_cli.sweep.states import JobState

HELP = """\
usage: pggrpo sweep status DIR [--json]
       pggrpo sweep resume DIR [key=value …]

status shows each job of the sweep in DIR: what tells it from the others, whether it is finished, running, stopped, failed or
waiting, its step, what it reached and how long it trained. It only reads, while the sweep runs or after a crash.

resume goes on with it without the command being typed again: finished jobs are left as they are, stopped and failed ones go on
from their checkpoints, bit for bit, the others begin. Free to change are the keys that pggrpo resume may change, and sweep.jobs.
What a sweep was told is read from disk, and so may name pggrpo's own parts only; security.allow_targets=[prefix,…] adds yours.

A sweep is started by pggrpo train -m loss=grpo,pg_grpo seed=1,2,3 sweep.jobs=2

  --json   the same as JSON: {"sweep", "running", "jobs": [{"job", "overrides", "state", "step", "objective", …}]}

examples:
  pggrpo sweep status outputs/sweeps/2026-11-23/12-00-00-train-1a2b3c
  pggrpo sweep resume outputs/sweeps/2026-11-23/12-00-00-train-1a2b3c sweep.jobs=4
"""
ACTIONS = ("status", "resume")


def main(arguments: list[str]) -> int:
    if not arguments or any(word in ("-h", "--help") for word in arguments):
        print(HELP, end="")
        return 0 if arguments else 2
    action, rest = arguments[0], arguments[1:]
    if action not in ACTIONS:
        started = " A sweep is started by pggrpo train -m." if "=" in action or action == "-m" else ""
        raise UsageError(
            f"`{action}`: pggrpo sweep has no such action.{did_you_mean(action, ACTIONS)} There are: "
            f"{', '.join(ACTIONS)}.{started}"
        )
    return _status(rest) if action == "status" else _resume(rest)


def _status(arguments: list[str]) -> int:
    from pggrpo_cli.options import Options

    parser = Options("sweep status")
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_intermixed_args(arguments)
    if options.folder is None:
        raise UsageError(
            "pggrpo sweep status: no folder is given. Write pggrpo sweep status DIR, the folder of a sweep."
        )
    from pggrpo_cli.report.run import is_at_work
    from pggrpo_cli.sweep.states import read_states

    path = Path(options.folder).expanduser()
    states = read_states(path)
    at_work = is_at_work(path)
    if options.json:
        jobs = [_as_values(one) for one in states]
        print(json.dumps({"sweep": str(path), "running": at_work, "jobs": jobs}, ensure_ascii=False, indent=2))
        return 0
    for line in _table(path, states, at_work=at_work):
        print(line.encode(sys.stdout.encoding or "utf-8", "replace").decode(sys.stdout.encoding or "utf-8"))
    return 0


def _table(path: Path, states: Sequence[JobState], *, at_work: bool) -> list[str]:
    from pggrpo_cli.printable import one_line
    from pggrpo_cli.sweep.display import as_rows, counted, fitted, line_width, lines_of
    from pggrpo_cli.sweep.words import telling

    words = dict(zip((one.job.number for one in states), telling([one.job.overrides for one in states]), strict=True))
    rows, width = as_rows(states, words), line_width()
    lines = [line for line, _ in lines_of(rows, width, len(rows) + 2)][:-1]
    lines += [
        fitted(f"job {one.job.number}: {one_line(str(one.failure.get('error')))}", width)
        for one in states
        if one.failure
    ]
    if not states:
        lines = ["no job was chosen yet"]
    metric = states[0].metric if states else None
    lines.append(fitted(f"{counted(rows)}; values: {metric or 'last eval/reward, else reward'}", width))
    if not at_work and any(one.state != "finished" for one in states):
        lines.append(f"to go on: {_again(path)}")
    elif any(one.state == "finished" for one in states):
        lines.append(f"to compare: pggrpo report {path}")
    return lines


def _again(path: Path) -> str:
    from pggrpo_cli.sweep.record import SWEEP, read_record
    from pggrpo_cli.sweep.trust import resume_command

    if (path / SWEEP).is_file():
        return resume_command(read_record(path))
    return f"the same command with hydra.sweep.dir={path}"


def _as_values(one: JobState) -> dict[str, Any]:
    return {
        "job": one.job.number,
        "folder": str(one.path),
        "overrides": list(one.job.overrides),
        "state": one.state,
        "step": one.step,
        "max_steps": one.max_steps,
        "objective": one.objective,
        "seconds": one.seconds,
        "exit_code": one.failure.get("exit_code"),
        "error": one.failure.get("error"),
    }


def _resume(arguments: list[str]) -> int:
    for word in arguments:
        if word.startswith("-"):
            raise UsageError(f"`{word}`: there is no such option. See pggrpo sweep --help.")
        if word.partition("=")[0] == "hydra.sweep.dir":
            raise UsageError(
                "`hydra.sweep.dir`: a sweep goes on where it lies. To have it elsewhere, move the folder first."
            )
    if not arguments or "=" in arguments[0]:
        word = arguments[0] if arguments else "pggrpo sweep resume"
        raise UsageError(f"`{word}`: the folder of the sweep comes first: pggrpo sweep resume DIR [key=value …].")
    folder, typed = Path(arguments[0]).expanduser().absolute(), arguments[1:]
    from pggrpo_cli.command.train import check_all
    from pggrpo_cli.hydra_start import start
    from pggrpo_cli.sweep.record import folder_word, read_record
    from pggrpo_cli.sweep.trust import Guard
    from pggrpo_cli.training import train

    record = read_record(folder)
    for word in (*record.words, record.config_name):
        if word.startswith("-"):
            raise CheckpointError(
                f"{folder}: its sweep.json holds `{word}`, which no sweep of ours writes; it is damaged."
            )
    _go_where_it_was(record)
    guard = Guard(folder, typed)
    words = ["-m", *guard.words(record.words), *typed, folder_word(folder), "--config-name", record.config_name]
    if record.config_dir is not None:
        words += ["--config-dir", record.config_dir]

    def check(cfg: DictConfig) -> None:
        guard.job(cfg)  # first: to look at a class of somebody else's may import what lies around it
        check_all(cfg)

    start("train", words, check, train, guard)
    return 0


def _go_where_it_was(record: Record) -> None:
    """Relative paths in the configuration begin there."""
    there = Path(record.working_folder)
    if there.is_dir() and there.resolve() != Path.cwd().resolve():
        print(f"in {there}, where the sweep was started", file=sys.stderr, flush=True)
        os.chdir(there)
