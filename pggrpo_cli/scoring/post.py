"""One POST with a deadline for all of it, by the standard library.

The timeouts of http.client, and of every other library, are for one read: an answer that drips keeps them waiting for
ever. Here the connection is cut at the deadline, wherever it is. No library for HTTP comes with every version of what we
depend on, and retries, deadline and concurrency would be ours with each of them.
"""

from __future__ import annotations

import base64
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

CONNECT_SECONDS = 10.0
LARGEST_ANSWER = 16 * 1024 * 1024
"""Bytes; a larger one is not read."""

LATE, CLOSED = "no whole answer in time", "the connection was closed in the middle of the answer"


class Refused(Exception):
    """Asking again would not help: a wrong certificate, an answer that is too large."""


class Interrupted(Exception):
    """No whole answer came; asking again may help."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    """By their names in lower case."""
    body: bytes


class Connections:
    """Those at work, so that all can be cut from another thread. Once it is closed there are no more."""

    def __init__(self) -> None:
        self.closed = threading.Event()
        self._open: set[HTTPConnection] = set()
        self._lock = threading.Lock()

    def close(self) -> None:
        with self._lock:
            self.closed.set()
            for connection in self._open:
                _cut(connection)

    @contextmanager
    def watched(self, connection: HTTPConnection, deadline: float) -> Iterator[None]:
        """`connection` is cut at `deadline`, of time.monotonic, or when all are closed."""
        with self._lock:
            if self.closed.is_set():
                raise Interrupted("stopped")
            self._open.add(connection)
        timer = threading.Timer(max(0.0, deadline - time.monotonic()), _cut, (connection,))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            with self._lock:
                self._open.discard(connection)
            connection.close()


def post(url: str, body: bytes, headers: Mapping[str, str], deadline: float, connections: Connections) -> Reply:
    """What `url` answers to `body`; redirects are an answer like any other. Raises Interrupted or Refused."""
    target = urlsplit(url)
    left = deadline - time.monotonic()
    if left <= 0:
        raise Interrupted("no time was left")
    connection, path, more = _connection(target, min(left, CONNECT_SECONDS))
    sent = {"Content-Type": "application/json", "Accept": "application/json", "Connection": "close", **more, **headers}
    try:
        with connections.watched(connection, deadline):
            connection.connect()
            if connection.sock is not None:
                connection.sock.settimeout(max(0.001, deadline - time.monotonic()))
            connection.request("POST", path, body=body, headers=sent)
            response = connection.getresponse()
            answer = response.read(LARGEST_ANSWER + 1)
            if len(answer) > LARGEST_ANSWER:
                raise Refused(f"the answer is larger than {LARGEST_ANSWER // 2**20} MB")
            names = {name.lower(): value for name, value in response.getheaders()}
            # Neither read(n) nor the reader of headers complains of an answer that ends before its end.
            if response.length or (not answer and "content-length" not in names):
                raise Interrupted(LATE if time.monotonic() >= deadline else CLOSED)
            return Reply(status=response.status, headers=names, body=answer)
    except ssl.SSLCertVerificationError as error:
        raise Refused(f"its certificate is not trusted: {error.verify_message}") from error
    except (OSError, HTTPException, ValueError) as error:
        if time.monotonic() >= deadline:
            raise Interrupted(LATE) from error
        raise Interrupted(_words(error)) from error


def reachable(url: str, seconds: float) -> str:
    """Empty if something listens where `url`, or the proxy to it, points; else why not."""
    connection, _, _ = _connection(urlsplit(url), min(seconds, CONNECT_SECONDS))
    try:
        socket.create_connection((connection.host, connection.port), connection.timeout).close()
    except OSError as error:
        return _words(error)
    return ""


def is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost" or host.endswith(".localhost")


def _connection(target: SplitResult, seconds: float) -> tuple[HTTPConnection, str, dict[str, str]]:
    """To the server, or to the proxy that the environment names for it; the path to ask for, and headers for a proxy."""
    host, secure = target.hostname or "", target.scheme == "https"
    path = (target.path or "/") + (f"?{target.query}" if target.query else "")
    proxy_url = None if is_loopback(host) or proxy_bypass(host) else getproxies().get(target.scheme)
    if not proxy_url:
        port = target.port or (443 if secure else 80)
        return (HTTPSConnection if secure else HTTPConnection)(host, port, timeout=seconds), path, {}
    proxy = urlsplit(proxy_url if "//" in proxy_url else f"//{proxy_url}")
    login = f"{unquote(proxy.username or '')}:{unquote(proxy.password or '')}"
    more = {"Proxy-Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"} if proxy.username else {}
    if secure:
        tunnel = HTTPSConnection(proxy.hostname or "", proxy.port or 8080, timeout=seconds)
        tunnel.set_tunnel(host, target.port or 443, more)
        return tunnel, path, {}
    plain = HTTPConnection(proxy.hostname or "", proxy.port or 8080, timeout=seconds)
    return plain, f"http://{target.netloc}{path}", more


def _cut(connection: HTTPConnection) -> None:
    """Whoever reads or writes sees the end of the connection; closing it would not wake them."""
    if connection.sock is not None:
        with suppress(OSError):
            socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)  # TLS would first wait for its own farewell


def _words(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "the connection was refused"
    if isinstance(error, TimeoutError):
        return "no connection in time"
    if isinstance(error, socket.gaierror):
        return "there is no host of this name"
    if isinstance(error, (ConnectionError, HTTPException)):
        return CLOSED
    return f"{type(error).__name__}: {error.strerror}" if isinstance(error, OSError) else type(error).__name__
