"""The lock of a run directory: who looks at it is in nobody's way."""

from __future__ import annotations

import errno
import fcntl
import threading
import time
from pathlib import Path

import pytest

from pggrpo_cli import run_directory as runs
from pggrpo_cli.errors import RunLockedError


def looked_at(run_dir: Path, seconds: float) -> threading.Thread:
    """Somebody else, who looks for so long whether it is locked, and has begun to."""
    begun = threading.Event()

    def look() -> None:
        with open(run_dir / runs.LOCK, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            begun.set()
            time.sleep(seconds)

    thread = threading.Thread(target=look)
    thread.start()
    assert begun.wait(5)
    return thread


@pytest.mark.fault("T11")
def test_looking_locks_nobody_out(tmp_path: Path) -> None:
    with runs.locked(tmp_path):
        assert runs.is_locked(tmp_path)
    looker = looked_at(tmp_path, 0.3)
    assert not runs.is_locked(tmp_path)  # nor does it look like work to another one
    with runs.locked(tmp_path):
        assert runs.is_locked(tmp_path)
    looker.join()


@pytest.mark.fault("T11")
def test_whoever_keeps_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "LOCK_SECONDS", 0.1)
    with runs.locked(tmp_path), pytest.raises(RunLockedError, match="in use by process"), runs.locked(tmp_path):
        pass


def test_looking_writes_nothing(tmp_path: Path) -> None:
    assert not runs.is_locked(tmp_path)
    assert not runs.is_locked(tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    assert not runs.is_locked(tmp_path / "file")


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: object, operation: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    with runs.locked(tmp_path):
        pass
    (tmp_path / runs.LOCK).unlink()
    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.warns(UserWarning, match="flock"), runs.locked(tmp_path):
        assert runs.is_locked(tmp_path)
    assert not runs.is_locked(tmp_path)
