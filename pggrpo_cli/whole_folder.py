"""Folders that are whole or not there: written beside, flushed, then renamed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from pggrpo_cli.warn import warn as warn_on_stderr


def flush(path: Path) -> None:
    """fsync of a file or folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def put_in_place(temporary: Path, final: Path) -> None:
    """Renames; a folder already of that name stays, as .replaced-<name>-<pid>, until its replacement is in."""
    replaced = final.with_name(f".replaced-{final.name}-{os.getpid()}")
    if final.exists():
        os.rename(final, replaced)
    os.rename(temporary, final)
    flush(final.parent)
    if replaced.exists():
        remove(replaced)


def bring_back(replaced: Path, final: Path, warn: Callable[[str], None] = warn_on_stderr) -> None:
    """What a killed put_in_place left of the former folder: it goes, or comes back if its replacement never came. What
    cannot be done only warns."""
    if final.exists():
        remove(replaced, warn)
        return
    try:
        os.rename(replaced, final)
    except OSError as error:
        warn(f"{replaced} could not be renamed back to {final.name}: {error}")


def remove(path: Path, warn: Callable[[str], None] = warn_on_stderr) -> None:
    """Deletes a folder. What cannot be deleted only warns."""
    try:
        shutil.rmtree(path)
    except OSError as error:
        warn(f"{path} could not be deleted: {error}")
