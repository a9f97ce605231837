"""`export --hub`, against a hub of our own on loopback; the real one is never asked."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import environment

PUSH = """
import sys
from pathlib import Path
from pggrpo_cli.errors import UsageError
from pggrpo_cli.exporting.hub import push, refuse_push
try:
    refuse_push(sys.argv[1])
    print(push(Path("out"), sys.argv[1]))
except UsageError as error:
    sys.exit(str(error))
"""


class Hub(ThreadingHTTPServer):
    """What the hub answers to a new repository and one commit of small files; `status`: of the creation."""

    def __init__(self, status: int = 200) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = status
        self.created: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.tokens: set[str | None] = set()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.tokens.add(self.headers.get("Authorization"))
        if self.path == "/api/repos/create":
            self.server.created.append(json.loads(body))
            self._say({"url": f"{self.server.address}/me/model", "name": "me/model"}, self.server.status)
        elif self.path == "/api/validate-yaml":  # of the card's header
            self._say({"errors": [], "warnings": []})
        elif self.path.endswith("/preupload/main"):
            files = [
                {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                for one in json.loads(body)["files"]
            ]
            self._say({"files": files})
        elif self.path.endswith("/commit/main"):
            for line in body.decode().splitlines():
                one = json.loads(line)
                if one["key"] == "file":
                    self.server.files[one["value"]["path"]] = base64.b64decode(one["value"]["content"])
            self._say({"success": True, "commitOid": "0" * 40, "commitUrl": f"{self.server.address}/me/model/commit/0"})
        else:
            self._say({}, 404)

    def do_GET(self) -> None:
        self._say({}, 404)

    def _say(self, answer: dict[str, Any], status: int = 200) -> None:
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "README.md").write_text("a card\n")
    (tmp_path / "out" / "model.safetensors").write_bytes(bytes(range(256)))
    return tmp_path


def push(folder: Path, name: str, **variables: str) -> tuple[int, str, str]:
    own = {"HF_HOME": str(folder / "home"), "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "*"}
    clean = {
        key: value for key, value in environment().items() if not key.startswith("HF_") and "proxy" not in key.lower()
    }
    done = subprocess.run(
        [sys.executable, "-c", PUSH, name], env={**clean, **own, **variables}, cwd=folder, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_pushed(folder: Path, hub: Hub) -> None:
    code, out, err = push(folder, "me/model", HF_ENDPOINT=hub.address, HF_TOKEN="hf_token")
    assert code == 0, err
    assert out.strip().endswith("/me/model")
    assert hub.files == {path.name: path.read_bytes() for path in (folder / "out").iterdir()}
    (created,) = hub.created
    assert (created["organization"], created["name"], created["visibility"]) == ("me", "model", "private")
    assert hub.tokens == {"Bearer hf_token"}


def test_refused_by_the_hub(folder: Path, hub: Hub) -> None:
    hub.status = 403
    code, _, err = push(folder, "me/model", HF_ENDPOINT=hub.address, HF_TOKEN="hf_token")
    assert code == 1
    assert "`--hub`: me/model could not be pushed" in err
    assert "403" in err
    assert "out is whole; to try again: hf upload me/model out" in err
    assert "Traceback" not in err
    assert "hf_token" not in err


def test_no_hub_no_token_and_offline(folder: Path, hub: Hub) -> None:
    hub.shutdown()
    hub.server_close()
    code, _, err = push(folder, "me/model", HF_ENDPOINT=hub.address, HF_TOKEN="hf_token")
    assert (code, "could not be pushed" in err, "Traceback" in err) == (1, True, False)
    assert "there is no access token" in push(folder, "me/model")[2]
    assert "HF_HUB_OFFLINE is set" in push(folder, "me/model", HF_HUB_OFFLINE="1", HF_TOKEN="hf_token")[2]
    assert "write OWNER/NAME" in push(folder, "model", HF_TOKEN="hf_token")[2]
