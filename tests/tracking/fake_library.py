"""A library called wandb that behaves as badly as FAKE says, for what the real one cannot be made to do."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

SOURCE = """
import json, os, signal, sys, time
FAKE = os.environ["FAKE"]

def note(*what):
    with open(os.environ["FAKE_CALLS"], "a") as calls:
        calls.write(json.dumps(what) + "\\n")

class Settings:
    def __init__(self, **settings):
        note("settings", settings["console"])

class Run:
    url = "http://dashboard/run"

    def log(self, row, step, commit):
        print("printed on stdout"); sys.stdout.flush()
        print("printed on stderr", file=sys.stderr)
        if FAKE == "dies" and step == 2:
            os._exit(9)
        if FAKE == "stopped" and step == 2:
            os.kill(os.getpid(), signal.SIGSTOP)
        if FAKE == "hangs" and step == 2:
            time.sleep(600)
        note("log", step, sorted(row))

    def finish(self, exit_code):
        if FAKE == "hangs at the end":
            time.sleep(600)
        note("finish", exit_code)

def init(**options):
    note("init", options["id"], options["name"], options["group"], options["config"], options["mode"])
    if FAKE == "exits":
        raise SystemExit("no key")
    if FAKE == "down" and options["mode"] == "online":
        raise ConnectionError("no server")
    return Run()

def teardown():
    note("teardown")
"""


class Fake:
    """The library on the path of this process and its children, and what it was asked."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._calls = folder / "calls"
        self._monkeypatch = monkeypatch
        (folder / "library").mkdir()
        (folder / "library" / "wandb.py").write_text(SOURCE)
        monkeypatch.setattr(sys, "path", [str(folder / "library"), *sys.path])
        monkeypatch.setenv("FAKE_CALLS", str(self._calls))
        monkeypatch.setenv("NETRC", str(folder / "no-netrc"))
        for name in [*os.environ]:
            if name.startswith("WANDB_"):
                monkeypatch.delenv(name)
        self.behaves("well")

    def behaves(self, how: str) -> None:
        self._monkeypatch.setenv("FAKE", how)

    def calls(self, what: str) -> list[list[Any]]:
        lines = self._calls.read_text().splitlines() if self._calls.exists() else []
        return [call[1:] for call in map(json.loads, lines) if call[0] == what]


def need(library: str) -> None:
    """Skips the test without it; where everything must be tested, it fails."""
    if not os.environ.get("CI"):
        pytest.importorskip(library)


def save_config(run_dir: Path, **values: Any) -> None:
    (run_dir / "config.yaml").write_text(yaml.safe_dump({"name": "x", "seed": 1, **values}))
