"""Real servers on 127.0.0.1, each in a thread of this process."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Handle = Callable[["Request"], None]


class Request(BaseHTTPRequestHandler):
    """One request, and how to answer it. `raw` writes to the connection as it is."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        server: Any = self.server
        with server.lock:
            server.seen.append(self)
            self.at_work = True
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
        try:
            server.handle_question(self)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client had enough
        finally:
            self._answered()

    def _answered(self) -> None:
        """Before the answer goes out: who has it may ask again before this thread comes to its next line."""
        server: Any = self.server
        with server.lock:
            server.at_once -= self.at_work
            self.at_work = False

    @property
    def question(self) -> Any:
        return json.loads(self.text)

    def reply(self, value: Any, status: int = 200, **headers: str) -> None:
        self._answered()
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, one in headers.items():
            self.send_header(name.replace("_", "-"), one)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def raw(self, data: bytes) -> None:
        self.close_connection = True
        self.wfile.write(data)
        self.wfile.flush()

    def log_message(self, *_: Any) -> None: ...


class Loopback(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, handle: Handle) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.handle_question = handle
        self.lock = threading.Lock()
        self.seen: list[Request] = []
        self.at_once = self.most_at_once = 0

    @property
    def url(self) -> str:
        scheme = "https" if isinstance(self.socket, ssl.SSLSocket) else "http"
        return f"{scheme}://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: Any) -> None: ...


@contextmanager
def loopback(handle: Handle, tls: ssl.SSLContext | None = None) -> Iterator[Loopback]:
    with Loopback(handle) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def in_turn(*handles: Handle) -> Handle:
    """The first request is answered by the first of `handles`, …; the last one answers all further requests."""
    left = list(handles)

    def handle(request: Request) -> None:
        (left.pop(0) if len(left) > 1 else left[0])(request)

    return handle


def status(number: int, **headers: str) -> Handle:
    return lambda request: request.reply({"error": "no"}, number, **headers)


def sleeps(seconds: float, then: Handle) -> Handle:
    def handle(request: Request) -> None:
        time.sleep(seconds)
        then(request)

    return handle


def chat(say: Callable[[str], str | None]) -> Handle:
    """As an OpenAI-compatible server answers: `say` turns the question into the text."""

    def handle(request: Request) -> None:
        text = say(request.question["messages"][-1]["content"])
        message = {"role": "assistant", "content": text}
        request.reply({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

    return handle


def dead_port() -> int:
    """A port on which nothing listens."""
    with Loopback(lambda request: None) as server:
        return int(server.server_address[1])
