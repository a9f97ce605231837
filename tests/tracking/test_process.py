"""What the tracker's process does while a server is down."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from pggrpo_cli.tracking import process
from pggrpo_cli.tracking.process import Work


class Server:
    """Raises the errors that are left, then takes what comes."""

    words = ""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.got: list[int] = []
        self.closed = ""

    def log(self, step: int, metrics: dict[str, float], samples: list[list[Any]]) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.got.append(step)

    def close(self, status: str) -> None:
        self.closed = status


def work(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, end: bool = True
) -> tuple[list[tuple[str, str]], dict[str, Any]]:
    """(what it told, the state it left) of three steps."""
    lines: list[dict[str, Any]] = [{"step": step, "metrics": {"reward": 0.5, "kl": None}} for step in (1, 2, 3)]
    text = "".join(json.dumps(line) + "\n" for line in [*lines, *([{"end": "finished"}] if end else [])])
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    monkeypatch.setattr(process, "FIRST_PAUSE", 0.0)
    monkeypatch.setattr(process.threading, "Timer", lambda *arguments: process.threading.Thread())  # no end of pytest
    told: list[tuple[str, str]] = []
    state = tmp_path / "t.json"
    run = {"id": "i", "name": "n", "group": None, "state": str(state)}
    first = {"name": "", "settings": {}, "run": run, "config": {}, "close_seconds": 5}
    at_work = Work(first, lambda kind, words: told.append((kind, words)))
    monkeypatch.setattr(at_work, "_open", lambda: setattr(at_work, "_session", server))
    at_work.run()
    return told, json.loads(state.read_text()) if state.exists() else {}


def test_a_line_that_fails_is_sent_again_in_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(ConnectionError("down"))
    told, state = work(server, tmp_path, monkeypatch)
    assert (server.got, server.closed) == ([1, 2, 3], "finished")
    assert told == [("warn", "ConnectionError: down; it is tried again, and training goes on")]
    assert state == {"id": "i", "name": "n", "group": None, "last_step": 3}


def test_a_line_that_can_never_be_sent_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(ValueError("no such name"))
    told, state = work(server, tmp_path, monkeypatch)
    assert server.got == [2, 3]
    assert told == [("warn", "ValueError: no such name; this step is left out, and training goes on")]
    assert state["last_step"] == 3


def test_a_server_that_stays_down_ends_with_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(*[SystemExit("down") for _ in range(10_000)])
    told, state = work(server, tmp_path, monkeypatch)
    assert [kind for kind, _ in told] == ["warn", "warn"]
    assert told[1][1].startswith("step 1 and what follows could not be sent")
    assert state == {}


def test_a_run_that_was_killed_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()
    work(server, tmp_path, monkeypatch, end=False)
    assert (server.got, server.closed) == ([1, 2, 3], "stopped")
