"""Which checkpoint of which run an export takes, and whether it may be written where it is wanted. No torch."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pggrpo_cli.errors import CheckpointError, UsageError
from pggrpo_cli.manifest import MANIFEST, Manifest, verify_manifest
from pggrpo_cli.run_directory import CHECKPOINTS, CONFIG, read_config
from pggrpo_cli.warn import warn
from pggrpo_cli.whole_folder import bring_back, remove

WISHES = "best, last or step-N"


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A checkpoint whose files match its manifest."""

    checkpoint: Path
    step: int
    run_dir: Path | None
    """None: the checkpoint lies outside of its run."""
    best: dict[str, float]
    """{"step": …, "value": …} of checkpoint.keep_best, as far as this run has come; empty: there is none."""
    chosen: str
    """Why this one, in words."""


def find_source(path: Path, wish: str | None) -> Source:
    """`path`: a run, of which `wish` names the checkpoint (None: the best if it was kept, else the last), or a checkpoint.

    Raises CheckpointError if there is none or its checksums do not match; UsageError for a wish that means nothing.
    """
    if (path / MANIFEST).exists():
        if wish is not None:
            raise UsageError(f"`--checkpoint`: {path} is one checkpoint already; {wish} would be one of a run's.")
        step = verify_manifest(path).step
        run_dir = path.absolute().parent.parent
        in_run = path.absolute().parent.name == CHECKPOINTS and (run_dir / CONFIG).exists()
        return Source(
            checkpoint=path, step=step, run_dir=run_dir if in_run else None, best=_best(path), chosen="as you named it"
        )
    if not path.is_dir():
        raise CheckpointError(f"{path} is no directory. Give the directory of a run or of one of its checkpoints.")
    read_config(path)
    folder = path / CHECKPOINTS
    if wish not in (None, "best", "last"):
        return _of_step(path, str(wish))
    from pggrpo_cli.checkpoint import newest_checkpoint

    newest = newest_checkpoint(folder)
    if newest is None:
        raise CheckpointError(f"{path} holds no complete checkpoint; there is nothing to export.")
    best = _best(newest)
    last = Source(checkpoint=newest, step=_manifest_step(newest), run_dir=path, best=best, chosen="the last")
    if wish == "last":
        return last
    if not best:
        if wish == "best":
            raise CheckpointError(
                f"`--checkpoint`: {path} has no best checkpoint: nothing was measured for checkpoint.keep_best. There are "
                f"{_present(folder)}; give --checkpoint last."
            )
        return last
    return _the_best(last, best, wish)


def clean_leftovers(out: Path) -> None:
    """What an export to `out` left that was killed: its half folder goes; the folder it was replacing comes back if the
    new one never came."""
    out = out.absolute()
    for path in _left_by_a_dead_process(out, ".replaced"):
        bring_back(path, out)
    for path in _left_by_a_dead_process(out, ".tmp"):
        remove(path)


def _left_by_a_dead_process(out: Path, beginning: str) -> list[Path]:
    """Folders beside `out` named after it and a process. The name counts whole: one export's may begin with another's."""
    named = re.compile(re.escape(f"{beginning}-{out.name}-") + r"\d+")
    there = sorted(out.parent.iterdir()) if out.parent.is_dir() else []
    return [path for path in there if named.fullmatch(path.name) and not _alive(path)]


def _alive(leftover: Path) -> bool:
    """Whether the process that made it, another one than this, still works on it."""
    import psutil

    process = leftover.name.rpartition("-")[2]
    return process.isdigit() and int(process) != os.getpid() and psutil.pid_exists(int(process))


def refuse_target(out: Path, source: Path, *, force: bool) -> None:
    """Raises UsageError if `out` is there, unless `force`; and always if it is no model folder or holds the source."""
    target, origin = out.absolute(), source.resolve()
    if target.exists() and not target.is_dir():
        raise UsageError(f"{out}: is a file; an export is a folder. Give another name.")
    if origin == target.resolve() or target.resolve() in origin.parents:
        raise UsageError(f"{out}: holds {source}, which is to be exported. Give a folder of its own.")
    existing = next(one for one in target.parents if one.exists())
    if not existing.is_dir():
        raise UsageError(f"{out}: {existing} is a file, so there can be no folder in it. Give another place.")
    if not target.exists() or not any(target.iterdir()):
        return
    if not force:
        raise UsageError(f"{out}: is there already and is not empty. Give another folder, or --force to replace it.")
    if not (target / "config.json").exists():
        raise UsageError(
            f"{out}: is no model folder (it has no config.json), and --force replaces only these. Give another folder."
        )


def refuse_full_disk(checkpoint: Path, out: Path) -> None:
    """Raises UsageError if the weights as they are would not fit."""
    size = sum(file.stat().st_size for file in checkpoint.glob("model*.safetensors"))
    existing = next(one for one in out.absolute().parents if one.exists())
    free = shutil.disk_usage(existing).free
    if free < size:
        raise UsageError(
            f"{out}: {free / 1e9:.2f} GB are free there, and the weights take {size / 1e9:.2f} GB. Free some."
        )


def _the_best(last: Source, best: dict[str, float], wish: str | None) -> Source:
    step, value = int(best["step"]), float(best["value"])
    assert last.run_dir is not None
    metric = str((read_config(last.run_dir).get("checkpoint") or {}).get("keep_best")).partition(":")[0]
    words = f"the best: {metric} {value:.4g}"
    if step == last.step:
        return Source(
            checkpoint=last.checkpoint, step=step, run_dir=last.run_dir, best=best, chosen=f"{words}; also the last"
        )
    folder = last.run_dir / CHECKPOINTS / f"step-{step:06d}"
    try:
        verify_manifest(folder)
    except CheckpointError as error:
        if wish == "best":
            raise
        warn(f"the best checkpoint, step {step}, cannot be used, so the last one is exported. {error}")
        return last
    return Source(checkpoint=folder, step=step, run_dir=last.run_dir, best=best, chosen=words)


def _of_step(run_dir: Path, wish: str) -> Source:
    match = re.fullmatch(r"(?:step-)?(\d+)", wish)
    if match is None:
        raise UsageError(f"`--checkpoint`: {wish!r} is none of {WISHES}. There are {_present(run_dir / CHECKPOINTS)}.")
    folder = run_dir / CHECKPOINTS / f"step-{int(match[1]):06d}"
    if not folder.exists():
        raise CheckpointError(
            f"`--checkpoint`: {run_dir} holds no checkpoint of step {int(match[1])}; there are {_present(folder.parent)}. "
            "checkpoint.keep_last says how many a run keeps."
        )
    manifest: Manifest = verify_manifest(folder)
    return Source(checkpoint=folder, step=manifest.step, run_dir=run_dir, best=_best(folder), chosen="as you named it")


def _present(folder: Path) -> str:
    return ", ".join(sorted(path.parent.name for path in folder.glob(f"step-*/{MANIFEST}"))) or "none"


def _manifest_step(checkpoint: Path) -> int:
    return int(json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))["step"])


def _best(checkpoint: Path) -> dict[str, float]:
    """What progress.best of a verified checkpoint says; empty if it says nothing that makes sense."""
    try:
        found: Any = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))["progress"]["best"]
        return {"step": int(found["step"]), "value": float(found["value"])} if found else {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        warn(f"checkpoint {checkpoint}: what it says of the best cannot be read: {error}")
        return {}
