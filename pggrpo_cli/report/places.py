"""Which run directories a command means: runs, or folders such as a sweep whose runs lie in them."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from pggrpo_cli import run_directory as runs
from pggrpo_cli.errors import UsageError
from pggrpo_cli.suggestions import nearest

MARKS = (runs.CONFIG, runs.METRICS, runs.ERROR)
"""A directory that holds one of these is a run's."""
PATTERNS = ("*/*", "sweeps/*/*/*")
"""Where runs lie below outputs/ (hydra.run.dir and hydra.sweep.dir of conf/train.yaml)."""


def find_runs(words: Sequence[str], command: str) -> list[Path]:
    """The directories of all runs meant, each once, in the order given. Raises UsageError."""
    found: dict[Path, Path] = {}
    for word in words:
        for path in _meant(Path(word).expanduser(), command):
            found.setdefault(path.resolve(), path)
    return list(found.values())


def newest_run(command: str) -> Path:
    """The run below outputs/ that something was last written to. Raises UsageError if there is none."""
    found = [path for pattern in PATTERNS for path in Path("outputs").glob(pattern) if is_run(path)]
    if not found:
        raise UsageError(f"there is no run below {Path('outputs').absolute()}. Give one: pggrpo {command} RUN.")
    return max(found, key=_last_written)


def is_run(path: Path) -> bool:
    return any((path / name).is_file() for name in MARKS)


def names(paths: Sequence[Path]) -> list[str]:
    """For each its folder's name, with as many of the folders above as are needed to tell them apart."""
    parts = [path.resolve().parts for path in paths]
    for depth in range(1, max(len(one) for one in parts) + 1):
        found = ["/".join(one[-depth:]) for one in parts]
        if len(set(found)) == len(found):
            return found
    return [str(path) for path in paths]


def _meant(path: Path, command: str) -> list[Path]:
    if (path / "manifest.json").is_file() and path.parent.name == runs.CHECKPOINTS:
        raise UsageError(f"{path} is one checkpoint; give its run: pggrpo {command} {path.parent.parent}.")
    if is_run(path):
        return [path]
    if not path.is_dir():
        raise UsageError(f"{path} {'is a file' if path.exists() else 'is not there'}.{_hint(path, command)}")
    below = sorted((one for one in path.iterdir() if one.is_dir() and is_run(one)), key=by_number)
    if below:
        return below
    deeper = sorted({str(file.parent) for mark in MARKS for file in path.glob(f"*/*/{mark}")} | _of_sweeps(path))
    if deeper:
        raise UsageError(
            f"{path} is no run, and the runs below it lie several levels down. Give the runs themselves or the folder "
            f"right above them, such as {deeper[-1]} or {Path(deeper[-1]).parent}."
        )
    raise UsageError(
        f"{path} is not the directory of a run: it holds neither {runs.CONFIG} nor {runs.METRICS}, and no folder in it "
        f"does.{_hint(path, command)}"
    )


def _of_sweeps(path: Path) -> set[str]:
    return {str(file.parent) for mark in MARKS for file in path.glob(f"*/*/*/{mark}")}


def _hint(path: Path, command: str) -> str:
    known = sorted(
        (one for pattern in PATTERNS for one in Path("outputs").glob(pattern) if is_run(one)), key=_last_written
    )
    near = nearest(str(path), map(str, known))
    if near:
        return f" Did you mean {' or '.join(near)}?"
    return f" The newest run is {known[-1]}." if known else f" Give the directory of a run: pggrpo {command} RUN."


def _last_written(path: Path) -> float:
    files = (path / name for name in (*MARKS, runs.ENVIRONMENT))
    return max((os.stat(file).st_mtime for file in files if file.exists()), default=0.0)


def by_number(path: Path) -> tuple[list[int], str]:
    """Job 10 behind job 9."""
    return [int(digits) for digits in re.findall(r"\d{1,18}", path.name)], path.name
