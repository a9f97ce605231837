"""A checkpoint's manifest: written last, it names every file with its size and SHA-256. No manifest, no checkpoint."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pggrpo_cli import __version__
from pggrpo_cli.errors import CheckpointError

MANIFEST = "manifest.json"
FORMAT_VERSION = 1
"""Raised whenever an older pggrpo could not read what this one writes."""
BLOCK_BYTES = 4 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What a whole checkpoint says of itself."""

    step: int
    version: str
    """The pggrpo that wrote it."""


def write_manifest(folder: Path, step: int) -> Path:
    """Hashes every file below `folder` and writes the manifest beside them; its path."""
    files = {
        file.relative_to(folder).as_posix(): {"size": file.stat().st_size, "sha256": sha256(file)}
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file != folder / MANIFEST
    }
    body = {"format_version": FORMAT_VERSION, "pggrpo_version": __version__, "step": step, "files": files}
    path = folder / MANIFEST
    path.write_text(json.dumps({**body, "sha256": _digest(body)}, indent=1) + "\n", encoding="utf-8")
    return path


def verify_manifest(folder: Path) -> Manifest:
    """Compares every file with the manifest. Raises CheckpointError with file and reason; NewerCheckpointError if only
    a later pggrpo can read it."""
    body = _read(folder)
    for name, expected in body["files"].items():
        file = folder / name
        reason = None
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            reason = "lies outside the checkpoint"
        elif not file.resolve().is_relative_to(folder.resolve()):
            reason = "is a link that leads out of the checkpoint"
        elif not file.is_file():
            reason = "is missing"
        elif file.stat().st_size != expected["size"]:
            reason = f"has {file.stat().st_size} bytes instead of {expected['size']}"
        elif sha256(file) != expected["sha256"]:
            reason = "does not match its SHA-256: its content has changed"
        if reason is not None:
            raise CheckpointError(f"checkpoint {folder}: {name} {reason}.")
    return Manifest(step=body["step"], version=body["pggrpo_version"])


class NewerCheckpointError(CheckpointError):
    """Whole, but written in a format of a later pggrpo: to fall back on an older checkpoint would be the wrong help."""


def _read(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not folder.is_dir():
        raise CheckpointError(f"checkpoint {folder}: there is no such folder.")
    if not path.is_file():
        raise CheckpointError(f"checkpoint {folder}: {MANIFEST} is missing; it was never completed.")
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        format_version, version = body["format_version"], body["pggrpo_version"]
        if isinstance(format_version, int) and format_version > FORMAT_VERSION:
            raise NewerCheckpointError(
                f"checkpoint {folder}: made by pggrpo {version}, needs ≥ {version}; this is {__version__}. "
                "Upgrade with: pip install -U pggrpo"
            )
        if body.pop("sha256") != _digest(body) or format_version != FORMAT_VERSION:
            raise ValueError("it does not match its own SHA-256")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"checkpoint {folder}: {MANIFEST} cannot be trusted: {error}.") from error
    return dict(body)


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def sha256(path: Path) -> str:
    """Hex digest of a file, in blocks (hashlib.file_digest needs Python 3.11)."""
    digest = hashlib.sha256()
    block = memoryview(bytearray(BLOCK_BYTES))
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(block):
            digest.update(block[:size])
    return digest.hexdigest()
