"""A hub on loopback that goes away; the real one is never asked."""

from __future__ import annotations

import errno
import hashlib
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest

from pggrpo_cli import hub
from tests.command_line import environment
from tests.conftest import save_tiny

COMMIT = "a" * 40
LOAD = """
import json, sys, time
from pggrpo_cli.data.hf import Hf as Data
from pggrpo_cli.errors import ConfigError
from pggrpo_cli.model_outline import model_config, outline_of_hub
from pggrpo_cli.weights import load_hub
words = {"columns": {"prompt": "question"}, "as_chat": True, "name": None, "split": "train", "eval_split": None}
ways = {
    "weights": lambda name: load_hub(name, None, "model.path").source,
    "outline": lambda name: type(outline_of_hub(name, None, "model.path")).__name__,
    "config": lambda name: type(model_config(name, None, "model.path")).__name__,
    "data": lambda name: str(Data(path=name, eval_size=0, streaming=False, **words).load(1)),
}
found = {}
for way, name in (one.split("=") for one in sys.argv[1:]):
    began = time.monotonic()
    try:
        said = ways[way](name)
    except ConfigError as error:
        said = str(error)
    found[way] = [said, time.monotonic() - began]
print(json.dumps(found))
"""


def load(home: Path, address: str, *what: str) -> tuple[dict[str, list[Any]], str]:
    """(by way of loading, what came of it and in how many seconds; what was printed meanwhile)."""
    own = {"HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "*", "HF_ENDPOINT": address}
    clean = {key: value for key, value in environment().items() if not key.startswith(("HF_", "TRANSFORMERS_"))}
    done = subprocess.run(
        [sys.executable, "-c", LOAD, *what], env={**clean, **own}, cwd=home, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


class Hub(BaseHTTPRequestHandler):
    """Of `me/tiny` the files of a folder, at one commit."""

    folder: Path

    def do_HEAD(self) -> None:
        file = self.folder / self.path.rpartition("/")[2]
        found = self.path.startswith("/me/tiny/resolve/") and file.is_file()
        data = file.read_bytes() if found else b""
        self.send_response(200 if found else 404)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        if not found:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def do_GET(self) -> None:
        self.do_HEAD()

    def log_message(self, *_: Any) -> None: ...


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Its address."""
    handler = type("Served", (Hub,), {"folder": folder})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_hub_that_goes_away_costs_seconds_and_no_line(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with serving(save_tiny(tmp_path / "served")) as address:
        found, _ = load(home, address, "outline=me/tiny", "weights=me/tiny", "config=me/tiny")
        assert [said for said, _ in found.values()] == ["ModelOutline", "me/tiny", "LlamaConfig"]
    ways = ("weights=me/tiny", "config=me/tiny", "outline=me/other", "data=me/set")
    found, printed = load(home, address, *ways)
    assert [found[way][0] for way in ("weights", "config")] == ["me/tiny", "LlamaConfig"]  # from the cache, as before
    for way, key in (("outline", "model.path"), ("data", "data.path")):
        said, seconds = found[way]
        assert f"`{key}`: cannot read" in said
        assert f"{address} cannot be reached (Connection refused), and the hub's cache" in said
        assert seconds < hub.TRY_FOR_S + 3
    assert "Retry" not in printed


def session(*answers: Exception | None) -> Any:
    """Each question gets the next answer, the last one for ever."""
    left = list(answers)

    def head(url: str, timeout: float) -> None:
        answer = left.pop(0) if len(left) > 1 else left[0]
        if answer is not None:
            raise answer

    return lambda: SimpleNamespace(head=head)


def caused(error: Exception, by: Exception) -> Exception:
    error.__cause__ = by
    return error


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([None], None),
        ([caused(RuntimeError("x"), socket.gaierror(-2, "Name not known"))], "cannot be reached (Name not known)"),
        ([caused(RuntimeError("x"), OSError(errno.ENETUNREACH, "No network"))], "cannot be reached (No network)"),
        ([socket.gaierror(-3, "For a moment"), None], None),
        ([TimeoutError("slow")], None),
        ([RuntimeError("something else")], None),
    ],
)
def test_away_is_not_slow(answers: list[Exception | None], said: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.utils.get_session", session(*answers))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "PAUSE_S", 0.01)
    monkeypatch.setattr(hub, "TRY_FOR_S", 0.1)
    found = hub.unreachable()
    assert found is None if said is None else said in str(found)


def test_another_address_that_is_out_of_reach_is_no_word_on_a_slow_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.utils.get_session", session(OSError(errno.ENETUNREACH, "No way by IPv6")))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "TRY_FOR_S", 0.1)
    assert hub.unreachable() is not None
    monkeypatch.setattr(hub, "SLOW_S", 0.0)
    assert hub.unreachable() is None


def test_a_hub_switched_off_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.utils.get_session", session(socket.gaierror(-2, "Name not known")))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert hub.unreachable() is None


def test_datasets_asks_again_once_the_hub_is_back() -> None:
    former = datasets.config.HF_HUB_OFFLINE
    with hub.datasets_from_cache(datasets, "away"):
        assert datasets.config.HF_HUB_OFFLINE
    with hub.datasets_from_cache(datasets, None):
        assert bool(datasets.config.HF_HUB_OFFLINE) is bool(former)
