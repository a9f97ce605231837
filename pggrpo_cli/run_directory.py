"""A run on disk as the command line sees it: lock, configuration, whether it is finished, which one to go on with."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from pggrpo_cli.config import TrainConfig, as_dict, brought_up_to_date
from pggrpo_cli.errors import CheckpointError, ConfigError, RunLockedError
from pggrpo_cli.json_file import read_object
from pggrpo_cli.warn import warn
from pggrpo_cli.whole_file import write_whole

CONFIG, OVERRIDES, ENVIRONMENT, FINISHED = "config.yaml", "overrides.yaml", "environment.json", "finished.json"
LOCK, OWNER = ".lock", ".owner.json"
METRICS, SAMPLES, CHECKPOINTS = "metrics.jsonl", "samples.jsonl", "checkpoints"
ERROR = "error.json"
"""What a job of a sweep failed with."""
LOCK_SECONDS = 1.0
"""How long a lock is tried for: whoever looks whether a run is at work holds it for a moment."""

MAY_CHANGE = (
    "resume",
    "security",
    "sweep",
    "device",
    "trainer.max_steps",
    "trainer.max_minutes",
    "trainer.target_reward",
    "trainer.preemption_signal",
    "checkpoint",
    "evaluation.every",
    "logger",
    "scoring.workers",
)
"""Keys (with all below them) that may differ when a run goes on; resume.allow_changed adds to them."""


def new_run_dir(name: str) -> Path:
    """A directory that is not there yet, by the pattern of hydra.run.dir in conf/train.yaml; for runs without Hydra."""
    now = datetime.now()
    return Path(f"outputs/{now:%Y-%m-%d}/{now:%H-%M-%S}-{name}-{secrets.token_hex(3)}")


def shown(run_dir: Path) -> Path:
    """As one would type it."""
    return Path(os.path.relpath(run_dir)) if run_dir.is_relative_to(Path.cwd()) else run_dir


def resume_command(values: Mapping[str, Any] | TrainConfig, run_dir: Path) -> str:
    """What to type to go on with a run, with what a configuration read from disk may not run unasked."""
    from pggrpo_cli.check import foreign_nodes

    plain = values if isinstance(values, Mapping) else as_dict(values)
    targets = dict.fromkeys(node.target for node in foreign_nodes(plain))
    allow = f" security.allow_targets=[{','.join(targets)}]" if targets else ""
    folders = dict.fromkeys(folder for target in targets if (folder := _users_folder(target)) is not None)
    where = "".join(f" --config-dir {folder}" for folder in list(folders)[:1])
    return f"pggrpo resume {shown(run_dir)}{where}{allow}"


def _users_folder(target: str) -> Path | None:
    """The folder that a class of the user's is imported from, if that is neither this one nor an installed package."""
    top = target.partition(".")[0]
    for folder in map(Path, sys.path):
        if (folder / f"{top}.py").exists() or (folder / top).is_dir():
            installed = any(part in ("site-packages", "dist-packages") for part in folder.parts)
            return None if installed or folder.resolve() == Path.cwd() or top == "pggrpo_cli" else shown(folder)
    return None


def start_anew(run_dir: Path) -> None:
    """Removes the records of a run that left no checkpoint: a new run begins in its directory."""
    for name in (METRICS, SAMPLES):
        (run_dir / name).unlink(missing_ok=True)


def newest_step(run_dir: Path) -> int:
    """The step of the newest checkpoint, whole or not."""
    return max(saved_steps(run_dir), default=0)


def saved_steps(run_dir: Path) -> list[int]:
    """The steps of which there are checkpoints, whole or not, in their order."""
    steps = [re.search(r"step-(\d+)", path.name) for path in _checkpoints(run_dir)]
    return sorted({int(step[1]) for step in steps if step is not None})


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Holds the run directory while within; the lock dies with the process. Raises RunLockedError naming the holder."""
    from filelock import FileLock, Timeout

    owner = run_dir / OWNER
    lock = FileLock(run_dir / LOCK, timeout=LOCK_SECONDS)
    try:
        with writable(run_dir):
            run_dir.mkdir(parents=True, exist_ok=True)
            lock.acquire()
    except Timeout:
        holder = read_object(owner)
        who = f"process {holder.get('pid', '?')} on {holder.get('host', '?')} since {holder.get('since', '?')}"
        raise RunLockedError(f"{run_dir} is in use by {who}. Wait for it, or stop it with a signal.") from None
    try:
        now = datetime.now().isoformat(timespec="seconds")
        with writable(run_dir):
            write_whole(owner, json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": now}))
        yield
    finally:
        # The lock's file stays: whoever removes it may let two processes lock two different files of that name.
        owner.unlink(missing_ok=True)
        lock.release()


@contextmanager
def writable(run_dir: Path) -> Iterator[None]:
    """Whatever the disk refuses within is a ConfigError that names the run directory."""
    try:
        yield
    except OSError as error:
        if not error.errno:  # filelock's Timeout is one, too
            raise
        raise ConfigError(
            f"`hydra.run.dir`: {shown(run_dir)} cannot be written: {error.strerror}. Make room or give another directory."
        ) from error


def is_locked(run_dir: Path) -> bool:
    """Whether another process works in it now. Nothing is written, and a shared lock is asked for: several may look at once.
    Raises OSError where the lock may not be touched."""
    import fcntl

    try:
        file = open(run_dir / LOCK, "rb")  # noqa: SIM115
    except (FileNotFoundError, NotADirectoryError):
        return False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno == errno.ENOSYS:
                return _is_locked_softly(run_dir)
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            return True
        return False


def _is_locked_softly(run_dir: Path) -> bool:
    """On a file system without flock, where filelock takes the mere presence of a file for the lock."""
    from filelock import FileLock, Timeout

    try:
        with FileLock(run_dir / LOCK, timeout=0):
            return False
    except Timeout:
        return True


def has_checkpoints(run_dir: Path) -> bool:
    return bool(_checkpoints(run_dir))


def _checkpoints(run_dir: Path) -> list[Path]:
    """Those of whole steps, and those that a kill caught while their replacement was moved in."""
    folder = run_dir / CHECKPOINTS
    patterns = ("step-*/manifest.json", ".replaced-step-*/manifest.json")
    return [manifest.parent for pattern in patterns for manifest in folder.glob(pattern)]


def is_finished(run_dir: Path) -> bool:
    return (run_dir / FINISHED).exists()


def nothing_left(run_dir: Path, values: Mapping[str, Any]) -> bool:
    """Whether it is finished, and `values` ask for no more than it did."""
    if not is_finished(run_dir) or not has_checkpoints(run_dir):
        return False
    idle = tuple(key for key in MAY_CHANGE if not key.startswith("trainer."))
    return all(may_change(key, idle) for key in changed_keys(read_config(run_dir), values))


def finished_step(run_dir: Path) -> int | None:
    """After which step the run ended; None if it is not finished."""
    step = read_object(run_dir / FINISHED).get("step")
    return step if isinstance(step, int) else None


def save_config(run_dir: Path, values: Mapping[str, Any]) -> None:
    """Plain YAML, every interpolation resolved: what is read back is data, whatever it looks like."""
    write_whole(run_dir / CONFIG, yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True, width=10**6))


def save_overrides(run_dir: Path, overrides: Sequence[str]) -> None:
    write_whole(run_dir / OVERRIDES, yaml.safe_dump(list(overrides), allow_unicode=True))


def save_finished(run_dir: Path, step: int) -> None:
    """Marks the run as one that has nothing left to do. A disk that refuses is only warned of: the run is done."""
    try:
        write_whole(run_dir / FINISHED, json.dumps({"step": step}) + "\n")
    except OSError as error:
        warn(f"{run_dir / FINISHED} cannot be written ({error.strerror}); the run is done, and all of it is saved")


def read_config(run_dir: Path) -> dict[str, Any]:
    """config.yaml of a run. Raises CheckpointError if there is none, or if it is none of ours."""
    file = run_dir / CONFIG
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{run_dir} holds no {CONFIG}: it is not the directory of a run.") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise CheckpointError(f"{file} cannot be read: {' '.join(str(error).split())}.") from error
    if not isinstance(values, dict):
        raise CheckpointError(
            f"{file} is not a configuration. Put back the run's own: {OVERRIDES} beside it lists what was typed, and "
            "`pggrpo train --cfg job` with that shows it."
        )
    return brought_up_to_date(values)


def changed_keys(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted keys whose values differ, the deepest that exist."""
    changed: list[str] = []
    for key in [*old, *(key for key in new if key not in old)]:
        before, after, path = old.get(key), new.get(key), f"{prefix}{key}"
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            changed += changed_keys(before, after, f"{path}.")
        elif before != after or (key in old) != (key in new):
            changed.append(path)
    return changed


def may_change(key: str, allowed: tuple[str, ...]) -> bool:
    """Whether `key` is one of `allowed` or lies below one."""
    return any(key == one or key.startswith(f"{one}.") for one in allowed)


def refuse_changes(old: Mapping[str, Any], new: Mapping[str, Any], allow_changed: list[str], run_dir: Path) -> None:
    """Raises ConfigError naming the keys in which `new` must not differ from `old`, the run to go on with."""
    allowed = (*MAY_CHANGE, *allow_changed)
    wrong = [key for key in changed_keys(old, new) if not may_change(key, allowed)]
    if wrong:
        raise ConfigError(
            f"`{wrong[0]}`: differs from the run in {run_dir}"
            + (f", and so do {', '.join(wrong[1:])}" if wrong[1:] else "")
            + f". A run goes on with the same configuration; free to change are {', '.join(MAY_CHANGE[3:])}. "
            f"If you mean it, add resume.allow_changed=[{','.join(wrong)}]."
        )


def newest_unfinished(run_dir: Path, depth: int, values: Mapping[str, Any]) -> Path | None:
    """The newest run beside `run_dir` (`depth` folders below the same root) with the configuration `values` that holds
    checkpoints, is not finished and is not being worked on."""
    parents = run_dir.absolute().parents
    root = parents[min(depth, len(parents)) - 1]
    found = [file.parent for file in root.glob("*/" * depth + CONFIG) if file.parent != run_dir.absolute()]
    for candidate in sorted(found, key=_last_change, reverse=True):
        if is_finished(candidate) or not has_checkpoints(candidate) or is_locked(candidate):
            continue
        with suppress(CheckpointError):
            if all(may_change(key, ("resume", "sweep")) for key in changed_keys(read_config(candidate), values)):
                return candidate
    return None


def _last_change(run_dir: Path) -> float:
    return max(path.stat().st_mtime for path in (run_dir / CONFIG, run_dir / CHECKPOINTS) if path.exists())


def discard_if_unused(run_dir: Path) -> None:
    """Removes the directory of a run that was refused before its first step, and folders left empty by that."""
    ours = {CONFIG, OVERRIDES, ENVIRONMENT, LOCK, OWNER, METRICS, SAMPLES, CHECKPOINTS}
    ours |= {f".{name}.tmp" for name in ours}
    ours |= {path.name for path in run_dir.glob("*.sqlite")}  # what a judge said in the dry run
    if {path.name for path in run_dir.iterdir()} - ours:
        return
    for path in (run_dir / METRICS, run_dir / SAMPLES):
        if path.exists() and path.stat().st_size:
            return
    if (run_dir / CHECKPOINTS).is_dir() and any((run_dir / CHECKPOINTS).iterdir()):
        return
    shutil.rmtree(run_dir)
    for parent in run_dir.absolute().parents[:2]:
        if parent == Path.cwd() or any(parent.iterdir()):
            return
        parent.rmdir()
