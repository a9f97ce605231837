"""One POST with a deadline for all of it, by the standard library.

The timeouts of http.client, and of every other library, are for one read: an answer that drips keeps them waiting for
ever. Here the connection is cut at the deadline, wherever it is: looking up the name, connecting, shaking hands, reading.
No library for HTTP comes with every version of what we
depend on, and retries, deadline and concurrency would be ours with each of them.
"""

from __future__ import annotations

import base64
import ipaddress
import queue
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

CONNECT_SECONDS = 10.0
"""For one address of a host, at most."""
LARGEST_ANSWER = 16 * 1024 * 1024
"""Bytes; a larger one is not read."""

LATE, CLOSED = "no whole answer in time", "the connection was closed in the middle of the answer"
NO_CONNECTION = "no connection in time"


class Refused(Exception):
    """Asking again would not help: a wrong certificate, an answer that is too large."""


class Interrupted(Exception):
    """No whole answer came; asking again may help."""


class Late(Interrupted):
    """The deadline came first."""


class Unreachable(Interrupted):
    """There was no connection, so nothing of the question was sent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    """By their names in lower case."""
    body: bytes
    whole: bool
    """Whether the server said how long it is. Else the end of the connection ended it, which may have come too early."""


class _Line:
    """The socket of one question, to be cut from another thread. A copy of its own: http.client has none to offer while
    it connects and shakes hands."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._cut = False

    def hold(self, one: socket.socket) -> None:
        """In place of the one before. Raises Unreachable if it was cut already."""
        with self._lock:
            self._drop()
            if self._cut:
                raise Unreachable(NO_CONNECTION)
            self._socket = one.dup()

    def cut(self) -> None:
        """Whoever reads or writes sees the end of the connection; closing it would not wake them."""
        with self._lock:
            self._cut = True
            if self._socket is not None:
                with suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class Connections:
    """Those at work, so that all can be cut from another thread. Once it is closed there are no more."""

    def __init__(self) -> None:
        self.closed = threading.Event()
        self._open: set[_Line] = set()
        self._lock = threading.Lock()

    def close(self) -> None:
        with self._lock:
            self.closed.set()
            for line in self._open:
                line.cut()

    @contextmanager
    def line(self, deadline: float) -> Iterator[_Line]:
        """One that is cut at `deadline`, of time.monotonic, or when all are closed."""
        with self._lock:
            if self.closed.is_set():
                raise Interrupted("stopped")
            self._open.add(line := _Line())
        timer = threading.Timer(max(0.0, deadline - time.monotonic()), line.cut)
        timer.daemon = True
        timer.start()
        try:
            yield line
        finally:
            timer.cancel()
            with self._lock:
                self._open.discard(line)
            line.close()


def post(url: str, body: bytes, headers: Mapping[str, str], deadline: float, connections: Connections) -> Reply:
    """What `url` answers to `body`; redirects are an answer like any other. Raises Interrupted or Refused."""
    if time.monotonic() >= deadline:
        raise Unreachable("no time was left")
    connection, path, more = _connection(urlsplit(url))
    sent = {"Content-Type": "application/json", "Accept": "application/json", "Connection": "close", **more, **headers}
    try:
        with connections.line(deadline) as line, closing(connection):
            # The one place where http.client lets others connect; its own way gives each address the whole time.
            connection._create_connection = lambda address, *_: _connected(address, deadline, line)  # type: ignore[attr-defined]
            connection.request("POST", path, body=body, headers=sent)
            reply = _read(connection.getresponse())
            if not reply.whole and (time.monotonic() >= deadline or connections.closed.is_set()):
                raise Late(LATE)  # the end that ended it was ours
            return reply
    except ssl.SSLCertVerificationError as error:
        raise Refused(f"its certificate is not trusted: {error.verify_message}") from error
    except (OSError, HTTPException, ValueError) as error:
        if time.monotonic() >= deadline:
            raise Late(LATE) from error
        raise Interrupted(_words(error)) from error


def _read(response: HTTPResponse) -> Reply:
    answer = response.read(LARGEST_ANSWER + 1)
    if len(answer) > LARGEST_ANSWER:
        raise Refused(f"the answer is larger than {LARGEST_ANSWER // 2**20} MB")
    names = {name.lower(): value for name, value in response.getheaders()}
    # Neither read(n) nor the reader of headers complains of an answer that ends before its end.
    if response.length or (not answer and "content-length" not in names):
        raise ConnectionError
    whole = "content-length" in names or "chunked" in names.get("transfer-encoding", "").lower()
    return Reply(status=response.status, headers=names, body=answer, whole=whole)


def reachable(url: str, seconds: float) -> str:
    """Empty if something listens where `url`, or the proxy to it, points; else why not, after so many seconds at most."""
    connection, _, _ = _connection(urlsplit(url))
    try:
        _connected((connection.host, connection.port), time.monotonic() + min(seconds, CONNECT_SECONDS)).close()
    except Unreachable as error:
        return str(error)
    return ""


def _connected(address: tuple[str, int], deadline: float, line: _Line | None = None) -> socket.socket:
    """A socket that is connected to one of the host's addresses; those that are left share the time. Raises Unreachable."""
    problem = NO_CONNECTION
    found = _looked_up(address, deadline)
    for place, (family, kind, protocol, _, one) in enumerate(found):
        share = (deadline - time.monotonic()) / (len(found) - place)
        if share <= 0:
            break
        try:
            made = socket.socket(family, kind, protocol)
        except OSError as error:  # no IPv6 here
            problem = _words(error)
            continue
        try:
            if line is not None:
                line.hold(made)
            made.settimeout(min(share, CONNECT_SECONDS))
            made.connect(one)
            made.settimeout(max(0.001, deadline - time.monotonic()))
            return made
        except OSError as error:
            made.close()
            problem = NO_CONNECTION if time.monotonic() >= deadline else _words(error)  # cut, or left to itself
        except BaseException:
            made.close()
            raise
    raise Unreachable(problem)


def _looked_up(address: tuple[str, int], deadline: float) -> Sequence[Any]:
    """As getaddrinfo, which knows no deadline and waits in a thread of its own. Raises Unreachable."""
    found: queue.SimpleQueue[Sequence[Any] | Exception] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            found.put(socket.getaddrinfo(*address, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            found.put(error)

    threading.Thread(target=look_up, name="name of a host", daemon=True).start()
    try:
        result = found.get(timeout=max(0.0, deadline - time.monotonic()))
    except queue.Empty:
        raise Unreachable("the name of the host was not looked up in time") from None
    if isinstance(result, Exception):
        raise Unreachable(_words(result)) from result
    return result


def is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost" or host.endswith(".localhost")


def _connection(target: SplitResult) -> tuple[HTTPConnection, str, dict[str, str]]:
    """To the server, or to the proxy that the environment names for it; the path to ask for, and headers for a proxy."""
    host, secure = target.hostname or "", target.scheme == "https"
    path = (target.path or "/") + (f"?{target.query}" if target.query else "")
    proxy_url = None if is_loopback(host) or proxy_bypass(host) else getproxies().get(target.scheme)
    if not proxy_url:
        port = target.port or (443 if secure else 80)
        return (HTTPSConnection if secure else HTTPConnection)(host, port), path, {}
    proxy = urlsplit(proxy_url if "//" in proxy_url else f"//{proxy_url}")
    login = f"{unquote(proxy.username or '')}:{unquote(proxy.password or '')}"
    more = {"Proxy-Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"} if proxy.username else {}
    if secure:
        tunnel = HTTPSConnection(proxy.hostname or "", proxy.port or 8080)
        tunnel.set_tunnel(host, target.port or 443, more)
        return tunnel, path, {}
    plain = HTTPConnection(proxy.hostname or "", proxy.port or 8080)
    return plain, f"http://{target.netloc}{path}", more


def _words(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "the connection was refused"
    if isinstance(error, TimeoutError):
        return NO_CONNECTION
    if isinstance(error, (socket.gaierror, UnicodeError)):
        return "there is no host of this name"
    if isinstance(error, (ConnectionError, HTTPException)):
        return CLOSED
    return f"{type(error).__name__}: {error.strerror}" if isinstance(error, OSError) else type(error).__name__
