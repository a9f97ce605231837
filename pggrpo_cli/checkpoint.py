"""Checkpoints that are whole or not there.

Saving: `.tmp-step-…-<pid>/` → files → fsync of each → manifest.json last → fsync → rename to `step-…` → fsync of the
parent. Until the rename nothing has happened; after it everything has. Loading believes only what matches the manifest.
safetensors and JSON only: a checkpoint from a stranger is data, never code. The caller holds the run's lock.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pggrpo_cli.errors import CheckpointError
from pggrpo_cli.manifest import MANIFEST, NewerCheckpointError, verify_manifest, write_manifest
from pggrpo_cli.types import StateDict
from pggrpo_cli.warn import warn as warn_on_stderr
from pggrpo_cli.whole_folder import bring_back, flush, put_in_place, remove

OPTIMIZER_TENSORS = "optimizer.safetensors"
STATE_TENSORS = "state.safetensors"
STATE_VALUES = "state.json"
HEADROOM = 1.2
"""Free space wanted before a save, in sizes of the checkpoint before it."""
_STEP = re.compile(r"step-(\d+)")
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DISK_FULL_TEXT = re.compile(r"no space left|os error (28|122|27)\b|quota exceeded|unexpected pos \d+", re.IGNORECASE)
"""safetensors says it in its own exception, torch's writer in a RuntimeError that does not even mention the disk."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """A verified checkpoint, its tensors on the CPU. The weights are the from_pretrained files in `path`."""

    path: Path
    step: int
    optimizer_tensors: dict[str, torch.Tensor]
    component_states: dict[str, StateDict]
    progress: dict[str, Any]


def save_checkpoint(
    checkpoints_dir: Path,
    step: int,
    *,
    export: Callable[[Path], None],
    optimizer_tensors: Mapping[str, torch.Tensor],
    component_states: Mapping[str, StateDict],
    progress: Mapping[str, Any],
) -> Path:
    """Writes `step-<step>` below `checkpoints_dir`; its path. `export(folder)` writes the from_pretrained files.

    Raises CheckpointError if the disk is full or refuses; then neither the new checkpoint nor its parts are there, and
    the earlier ones are untouched.
    """
    final = checkpoints_dir / f"step-{step:06d}"
    temporary = checkpoints_dir / f".tmp-{final.name}-{os.getpid()}"
    try:
        checkpoints_dir.mkdir(exist_ok=True)  # without parents: a run directory that has gone must not come back empty
        clean_leftovers(checkpoints_dir)
        _check_free_space(checkpoints_dir)
        temporary.mkdir()
        export(temporary)
        save_file(_savable(optimizer_tensors), temporary / OPTIMIZER_TENSORS)
        _write_states(temporary, component_states, progress)
        for path in [*temporary.rglob("*")]:
            flush(path)
        flush(write_manifest(temporary, step))
        flush(temporary)
        put_in_place(temporary, final)
    except BaseException as error:
        clean_leftovers(checkpoints_dir)
        reason = _outside_reason(error, checkpoints_dir)
        if reason is None:
            raise
        raise CheckpointError(
            f"`checkpoint`: step {step} could not be saved in {checkpoints_dir}: {reason} Earlier checkpoints are untouched."
        ) from error
    _set_aside_later(checkpoints_dir, step)
    return final


def load_checkpoint(path: Path) -> Checkpoint:
    """Verifies and reads one checkpoint. Raises CheckpointError naming the file and what is wrong with it."""
    try:
        manifest = verify_manifest(path)
        values = json.loads((path / STATE_VALUES).read_text(encoding="utf-8"))
        states: dict[str, StateDict] = values["components"]
        for name, tensor in load_file(path / STATE_TENSORS).items():
            component, _, key = name.partition("/")
            states[component][key] = tensor.clone()  # load_file maps the file, which purging removes
        return Checkpoint(
            path=path,
            step=manifest.step,
            optimizer_tensors=load_file(path / OPTIMIZER_TENSORS),
            component_states=states,
            progress=values["progress"],
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise CheckpointError(f"checkpoint {path}: cannot be read: {error}.") from error


def newest_checkpoint(checkpoints_dir: Path, warn: Callable[[str], None] = warn_on_stderr) -> Path | None:
    """The whole checkpoint of the highest step, or None; broken ones are skipped, each with a warning.

    Raises CheckpointError if the newest was written by a later pggrpo.
    """
    found = _steps(checkpoints_dir)
    for path in checkpoints_dir.glob(".replaced-step-*"):
        found.setdefault(_step_of(path), path)
    for _, path in sorted(found.items(), reverse=True):
        try:
            verify_manifest(path)
            return path
        except NewerCheckpointError:
            raise
        except (CheckpointError, OSError) as error:
            warn(f"skipped a broken checkpoint. {error}")
    return None


def newest_step_folder(checkpoints_dir: Path) -> Path | None:
    """The folder of the highest step, whole or not."""
    found = _steps(checkpoints_dir)
    return found[max(found)] if found else None


def purge(
    checkpoints_dir: Path, keep_last: int | None, best_step: int | None, warn: Callable[[str], None] = warn_on_stderr
) -> None:
    """Deletes all but the `keep_last` highest steps (null: all) and the best. What cannot be deleted only warns."""
    found = _steps(checkpoints_dir)
    whole = sorted(step for step, path in found.items() if (path / MANIFEST).exists())
    keep = set(whole if keep_last is None else whole[max(0, len(whole) - keep_last) :]) | {best_step}
    for step, path in found.items():
        if step not in keep and whole and step <= whole[-1]:
            _discard(path, warn)


def clean_leftovers(checkpoints_dir: Path, warn: Callable[[str], None] = warn_on_stderr) -> None:
    """Removes what an interrupted save or purge left. A checkpoint moved away for its replacement comes back if the
    replacement never came."""
    for path in sorted(checkpoints_dir.glob(".replaced-step-*")):
        bring_back(path, path.with_name(f"step-{_step_of(path):06d}"), warn)
    for path in _rubbish(checkpoints_dir):
        remove(path, warn)


def leftover_bytes(checkpoints_dir: Path) -> int:
    """What clean_leftovers would free."""
    files = [file for path in _rubbish(checkpoints_dir) for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def _rubbish(checkpoints_dir: Path) -> list[Path]:
    return sorted(path for pattern in (".tmp-step-*", ".trash-step-*") for path in checkpoints_dir.glob(pattern))


def _steps(checkpoints_dir: Path) -> dict[int, Path]:
    """Folders named as checkpoints, by step."""
    return {
        int(match[1]): path
        for path in checkpoints_dir.glob("step-*")
        if (match := _STEP.fullmatch(path.name)) and path.is_dir()
    }


def _step_of(path: Path) -> int:
    match = _STEP.search(path.name)
    return int(match[1]) if match else -1


def _savable(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """On the CPU, contiguous, none sharing memory with another (safetensors refuses that)."""
    seen: set[int] = set()
    savable: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        storage = tensor.untyped_storage().data_ptr()
        savable[name] = tensor.clone() if storage in seen else tensor
        seen.add(storage)
    return savable


def _write_states(folder: Path, states: Mapping[str, StateDict], progress: Mapping[str, Any]) -> None:
    tensors: dict[str, torch.Tensor] = {}
    values: dict[str, dict[str, Any]] = {}
    for component, state in states.items():
        values[component] = {}
        for key, value in state.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{component}/{key}"] = value
            else:
                values[component][key] = value
    save_file(_savable(tensors), folder / STATE_TENSORS)
    text = json.dumps({"progress": dict(progress), "components": values}, indent=1, allow_nan=False)
    (folder / STATE_VALUES).write_text(text + "\n", encoding="utf-8")


def _set_aside_later(checkpoints_dir: Path, step: int) -> None:
    """Whoever went back to an earlier step and saves again has left the later steps: they must neither be resumed from
    nor push the new ones out. They are renamed, not deleted."""
    for later, path in sorted(_steps(checkpoints_dir).items()):
        if later > step:
            aside = path.with_name(f"abandoned-{path.name}")
            count = 1
            while aside.exists():
                count += 1
                aside = path.with_name(f"abandoned-{path.name}-{count}")
            try:
                os.rename(path, aside)
                warn_on_stderr(f"{path} is of a course that step {step} left; it is now {aside.name}")
            except OSError as error:
                warn_on_stderr(f"{path} is of a course that step {step} left, and could not be renamed: {error}")


def _discard(path: Path, warn: Callable[[str], None]) -> None:
    """By rename first: a folder half deleted never bears a checkpoint's name."""
    trash = path.with_name(f".trash-{path.name}-{os.getpid()}")
    try:
        os.rename(path, trash)
    except OSError as error:
        warn(f"{path} could not be deleted: {error}")
        return
    remove(trash, warn)


def _check_free_space(checkpoints_dir: Path) -> None:
    """Raises OSError(ENOSPC) if the last checkpoint's like would not fit: better now than after minutes of writing."""
    found = _steps(checkpoints_dir)
    if not found:
        return
    last = found[max(found)]
    size = sum(file.stat().st_size for file in last.rglob("*") if file.is_file())
    if shutil.disk_usage(checkpoints_dir).free < HEADROOM * size:
        raise OSError(errno.ENOSPC, f"{HEADROOM * size / 1e9:.2f} GB are needed")


def _outside_reason(error: BaseException, folder: Path) -> str | None:
    """What the world did to a save, as a sentence; None if the error is a bug or an interruption."""
    if not isinstance(error, OSError | RuntimeError | SafetensorError):
        return None
    full = isinstance(error, OSError) and error.errno in _DISK_FULL
    if full or _DISK_FULL_TEXT.search(str(error)):
        while not folder.exists():
            folder = folder.parent
        free = shutil.disk_usage(folder).free / 1e9
        return f"the disk is full, {free:.2f} GB are free ({error}). Free some, or lower checkpoint.keep_last."
    return None if isinstance(error, RuntimeError) else f"{error}."
