"""Questions to real servers that fail in every way they can."""

from __future__ import annotations

import email.utils
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from pggrpo_cli.errors import ConfigError, Unavailable
from pggrpo_cli.scoring import post as post_module
from pggrpo_cli.scoring.post import reachable
from pggrpo_cli.scoring.server import Patience, Server, retry_after
from pggrpo_cli.types import ScoreError
from tests.loopback import Handle, Request, dead_port, in_turn, loopback, sleeps, status

pytestmark = pytest.mark.fault("T16")


def good(request: Request) -> None:
    request.reply({"was": request.question})


def patience(**changes: Any) -> Patience:
    return Patience(**{"retries": 5, "deadline_s": 5.0, "backoff_s": 0.01, "concurrency": 4} | changes)


def ask(url: str, *questions: Any, headers: Any = None, **changes: Any) -> list[Any]:
    return Server("reward.http", url, headers or {}, patience(**changes)).ask(questions or ["q"])


def failure(answer: Any) -> ScoreError:
    assert isinstance(answer, ScoreError)
    return answer


def halves(request: Request) -> None:
    request.raw(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"was"')


def half_a_head(request: Request) -> None:
    request.raw(b"HTTP/1.1 200 OK\r\nContent-Ty")


def half_a_chunk(request: Request) -> None:
    request.raw(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\n{"was"')


def hangs_up(request: Request) -> None:
    request.close_connection = True


def no_http(request: Request) -> None:
    request.raw(b"SSH-2.0-OpenSSH_9.6\r\n")


def half_of_an_unknown_length(request: Request) -> None:
    request.raw(b'HTTP/1.1 200 OK\r\n\r\n{"was"')


@pytest.mark.parametrize(
    "trouble",
    [
        *(status(500), status(503), status(429), status(408), halves, half_a_head, half_a_chunk, hangs_up, no_http),
        half_of_an_unknown_length,
    ],
)
def test_what_may_pass_is_tried_again(trouble: Handle) -> None:
    with loopback(in_turn(trouble, trouble, good)) as server:
        assert ask(server.url) == [{"was": "q"}]
        assert len(server.seen) == 3


@pytest.mark.parametrize(
    ("trouble", "words", "passing"),
    [
        (status(500), 'answered with status 500: \'{"error": "no"}\'', False),
        (status(503), 'answered with status 503: \'{"error": "no"}\'', True),
        (status(429), 'answered with status 429: \'{"error": "no"}\'', True),
        (halves, "the connection was closed in the middle of the answer", True),
        (half_a_chunk, "the connection was closed in the middle of the answer", True),
        (hangs_up, "the connection was closed in the middle of the answer", True),
        (half_of_an_unknown_length, "the answer is no JSON: '{\"was\"', or only its beginning", False),
    ],
)
def test_what_does_not_pass_is_said_in_the_end(trouble: Handle, words: str, passing: bool) -> None:
    with loopback(trouble) as server:
        error = failure(ask(server.url, retries=2)[0])
        assert error.passing == passing
        assert error.message.startswith(f"{server.url}: no answer after all retries (3 tries); at last ")
        assert words in error.message
        assert len(server.seen) == 3


@pytest.mark.parametrize("number", [400, 401, 404, 422])
def test_what_will_not_pass_is_not_tried_again(number: int) -> None:
    with loopback(status(number)) as server:
        error = failure(ask(server.url)[0])
        assert f'status {number}: \'{{"error": "no"}}\'' in error.message
        assert not error.passing
        assert len(server.seen) == 1


@pytest.mark.parametrize("body", [b"<html>Hello</html>", b"", b'{"was":', b"[" * 100_000, b"\xff\xfe"])
def test_an_answer_that_is_no_json(body: bytes) -> None:
    with loopback(lambda request: request.reply(body)) as server:
        error = failure(ask(server.url)[0])
        assert "the answer is no JSON" in error.message
        assert not error.passing
        assert len(server.seen) == 1


def test_a_redirect_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "canary-1234567890")
    with loopback(good) as other, loopback(status(307, Location=f"{other.url}/there?code=hidden")) as server:
        error = failure(ask(server.url, headers={"Authorization": ("Bearer ", "SOME_KEY")})[0])
        assert f"redirects to {other.url}/there, which is not followed" in error.message
        assert not other.seen


def test_retry_after_is_honoured() -> None:
    times: list[float] = []

    def note(request: Request) -> None:
        times.append(time.monotonic())
        request.reply({}, 429, Retry_After="1") if len(times) == 1 else good(request)

    with loopback(note) as server:
        assert ask(server.url) == [{"was": "q"}]
    assert times[1] - times[0] >= 1


@pytest.mark.parametrize("number", [429, 503])
def test_retry_after_beyond_the_deadline_is_not_waited_for(number: int) -> None:
    with loopback(status(number, Retry_After="3600")) as server:
        started = time.monotonic()
        error = failure(ask(server.url, deadline_s=5.0)[0])
        assert time.monotonic() - started < 2
        assert "asked to be left alone for 3600 seconds" in error.message
        assert error.passing
        assert len(server.seen) == 1


def test_retry_after_as_seconds_or_date() -> None:
    assert retry_after("7") == 7
    in_a_minute = email.utils.formatdate(time.time() + 60, usegmt=True)
    assert retry_after(in_a_minute) == pytest.approx(60, abs=2)
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert retry_after("soon") is None
    assert retry_after(None) is None


def drips_its_head(request: Request) -> None:
    request.raw(b"HTTP/1.1 200 OK\r\n")
    for _ in range(100):
        request.raw(b"X-A: b\r\n")
        time.sleep(0.05)


def drips_its_body(request: Request) -> None:
    request.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(100):
        request.raw(b" ")
        time.sleep(0.05)


def drips_without_a_length(request: Request) -> None:
    request.raw(b"HTTP/1.1 200 OK\r\n\r\n12")
    for _ in range(100):
        request.raw(b"3")
        time.sleep(0.05)


@pytest.mark.parametrize("trouble", [sleeps(3, good), drips_its_head, drips_its_body, drips_without_a_length])
def test_the_deadline_is_for_all_of_it(trouble: Handle) -> None:
    with loopback(trouble) as server:
        started = time.monotonic()
        error = failure(ask(server.url, deadline_s=0.4)[0])
        assert 0.3 < time.monotonic() - started < 1.5
        assert "no answer within deadline_s=0.4 seconds (1 try); at last no whole answer in time" in error.message
        assert error.passing


def test_an_answer_without_end_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(post_module, "LARGEST_ANSWER", 2**20)

    def endless(request: Request) -> None:
        request.raw(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            request.raw(b" " * 65536)

    with loopback(endless) as server:
        error = failure(ask(server.url)[0])
        assert "the answer is larger than 1 MB" in error.message


def test_questions_go_side_by_side_and_come_back_in_order() -> None:
    with loopback(sleeps(0.1, good)) as server:
        started = time.monotonic()
        answers = ask(server.url, *range(12), concurrency=6)
        assert time.monotonic() - started < 0.9
        assert answers == [{"was": number} for number in range(12)]
        assert 4 <= server.most_at_once <= 6


def test_one_question_that_breaks_the_server_fails_alone() -> None:
    with loopback(lambda request: status(500)(request) if request.question == 3 else good(request)) as server:
        answers = ask(server.url, *range(8), retries=1, concurrency=2)
    assert [place for place, one in enumerate(answers) if isinstance(one, ScoreError)] == [3]


@pytest.mark.parametrize(
    ("trouble", "bad"),
    [
        (status(500), {0, 1, 2, 3}),
        (status(503), {0, 1, 2, 3}),
        (hangs_up, {0, 1, 2, 3}),
        (sleeps(1, good), {2, 3, 4, 5}),  # silent from the beginning it would be down
    ],
)
def test_questions_that_the_server_chokes_on_fail_alone_and_not_for_now(trouble: Handle, bad: set[int]) -> None:
    """However many they are; asked again at a resume they would choke it again."""
    with loopback(lambda request: (trouble if request.question in bad else good)(request)) as server:
        answers = ask(server.url, *range(9), retries=0, concurrency=2, deadline_s=0.3)
    for number, answer in enumerate(answers):
        if number in bad:
            assert not failure(answer).passing
        else:
            assert answer == {"was": number}


def test_a_question_that_it_was_too_busy_for_is_not_at_fault() -> None:
    with loopback(lambda request: (status(429) if request.question == 3 else good)(request)) as server:
        answers = ask(server.url, *range(8), retries=1, concurrency=1)
    assert failure(answers[3]).passing
    assert answers[7] == {"was": 7}


def test_a_server_that_goes_down_in_the_middle() -> None:
    def handle(request: Request) -> None:
        (good if request.question < 3 else status(503))(request)

    with loopback(handle) as server:
        answers = ask(server.url, *range(8), retries=1, concurrency=1)
    assert answers[:3] == [{"was": number} for number in range(3)]
    assert all(failure(one).passing for one in answers[3:])


def test_a_server_that_is_no_longer_there_is_not_waited_for_again_and_again() -> None:
    """It answers one question and is gone."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer_once() -> None:
            connection, _ = listener.accept()
            listener.close()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1")

        threading.Thread(target=answer_once, daemon=True).start()
        started = time.monotonic()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        answers = ask(url, *range(60), retries=99, concurrency=1, deadline_s=0.3)
    assert time.monotonic() - started < 2
    assert answers[0] == 1
    assert all(failure(one).passing for one in answers[1:])
    assert "was not asked" in failure(answers[-1]).message


@contextmanager
def nobody_accepts() -> Iterator[int]:
    """A port where connections are neither accepted nor refused: its queue is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        time.sleep(0.1)
        yield listener.getsockname()[1]


def found(*ports: int) -> Callable[..., Any]:
    """As getaddrinfo finds several addresses of a host."""
    kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
    return lambda *_, **__: [(*kind, ("127.0.0.1", port)) for port in ports]


def test_the_deadline_is_for_all_addresses_of_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    with nobody_accepts() as port:
        monkeypatch.setattr(socket, "getaddrinfo", found(*[port] * 4))
        for attempt in (
            lambda: failure(ask("http://judge.invalid/", deadline_s=0.4)[0]).message,
            lambda: reachable("http://judge.invalid/", 0.4),
        ):
            started = time.monotonic()
            assert "no connection in time" in attempt()
            assert 0.3 < time.monotonic() - started < 0.8


def test_the_second_address_of_a_host_has_time_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with nobody_accepts() as port, loopback(good) as server:
        monkeypatch.setattr(socket, "getaddrinfo", found(port, server.server_address[1]))
        started = time.monotonic()
        assert ask("http://judge.invalid/", deadline_s=0.8) == [{"was": "q"}]
        assert time.monotonic() - started < 0.7
        assert reachable("http://judge.invalid/", 0.8) == ""


def test_the_deadline_is_for_the_name_of_a_host_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(2))
    for attempt in (
        lambda: failure(ask("http://judge.invalid/", deadline_s=0.3)[0]).message,
        lambda: reachable("http://judge.invalid/", 0.3),
    ):
        started = time.monotonic()
        assert "the name of the host was not looked up in time" in attempt()
        assert time.monotonic() - started < 1


def test_the_deadline_is_for_the_handshake_too() -> None:
    """A server that drips the first record of TLS, byte by byte."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                connection.sendall(b"\x16\x03\x03\x3f\x00\x02")
                for _ in range(60):
                    connection.sendall(b"\x00")
                    time.sleep(0.05)

        threading.Thread(target=drip, daemon=True).start()
        started = time.monotonic()
        error = failure(ask(f"https://127.0.0.1:{listener.getsockname()[1]}", deadline_s=0.4)[0])
        assert time.monotonic() - started < 1
        assert "no whole answer in time" in error.message


def test_a_server_that_is_down_is_not_asked_a_hundred_times() -> None:
    started = time.monotonic()
    answers = ask(
        f"http://127.0.0.1:{dead_port()}/v1?key=hidden", *range(100), deadline_s=0.3, retries=99, concurrency=2
    )
    assert time.monotonic() - started < 2
    assert all(failure(one).passing for one in answers)
    assert "the connection was refused" in failure(answers[0]).message
    assert "was not asked: nobody was there for the questions before" in failure(answers[-1]).message
    assert "hidden" not in failure(answers[0]).message


def test_an_unreachable_server_is_refused_in_one_paragraph() -> None:
    port = dead_port()
    server = Server("reward.judge", f"http://127.0.0.1:{port}/v1", {}, patience())
    with pytest.raises(Unavailable) as caught:
        server.refuse_unreachable()
    words = str(caught.value)
    assert words.startswith(
        f"`reward.judge.url`: nothing answers at http://127.0.0.1:{port}/v1: the connection was refused."
    )
    assert "\n" not in words


def test_secrets_go_into_headers_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "canary-1234567890")

    def repeats(request: Request) -> None:
        request.reply({"you sent": request.headers["Authorization"]}, 401 if request.question == "bad" else 200)

    with loopback(repeats) as server:
        server_ = Server("reward.http", server.url, {"Authorization": ("Bearer ", "SOME_KEY")}, patience())
        bad, fine = server_.ask(["bad", "fine"])
        assert {one.headers["Authorization"] for one in server.seen} == {"Bearer canary-1234567890"}
        assert "canary" not in failure(bad).message
        assert "[secret]" in failure(bad).message
        assert "canary" not in json.dumps(fine)
        assert "canary" not in repr(vars(server_))
    monkeypatch.setenv("SOME_KEY", "two\nlines")
    with pytest.raises(ConfigError, match=r"SOME_KEY, for Authorization, holds a character") as caught:
        server_.ask(["q"])
    assert "lines" not in str(caught.value)
    monkeypatch.delenv("SOME_KEY")
    with pytest.raises(ConfigError, match=r"SOME_KEY, for Authorization, is not set"):
        server_.ask(["q"])


def test_a_proxy_of_the_environment_is_used_but_not_for_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    paths: list[tuple[str, str]] = []

    def proxy(request: Request) -> None:
        paths.append((request.path, request.headers["Proxy-Authorization"]))
        good(request)

    with loopback(proxy) as other, loopback(good) as server:
        monkeypatch.setenv("http_proxy", other.url.replace("//", "//me:pass@"))
        assert ask(server.url) == [{"was": "q"}]
        assert not paths
        assert ask("http://judge.invalid:81/score?a=b") == [{"was": "q"}]
        assert paths == [("http://judge.invalid:81/score?a=b", "Basic bWU6cGFzcw==")]


def test_a_signal_does_not_wait_for_what_is_under_way() -> None:
    """As Ctrl-C does: an exception in the thread that waits."""

    class Signal(BaseException): ...

    def interrupt(*_: object) -> None:
        raise Signal

    former = signal.signal(signal.SIGALRM, interrupt)
    with loopback(sleeps(0.8, good)) as server:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        started = time.monotonic()
        with pytest.raises(Signal):
            ask(server.url, 1, 2, 3, 4, concurrency=2)
        assert time.monotonic() - started < 0.5
        time.sleep(0.2)
        assert not [thread for thread in threading.enumerate() if thread.name == "question"]
        assert len(server.seen) == 2
    signal.signal(signal.SIGALRM, former)


@pytest.mark.skipif(
    not os.environ.get("CI") and shutil.which("openssl") is None, reason="makes a certificate with openssl"
)
def test_a_certificate_is_trusted_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([*made.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with loopback(in_turn(good, sleeps(2, good)), tls=context) as server:
        error = failure(ask(server.url)[0])
        assert "its certificate is not trusted: self-signed certificate" in error.message
        assert not error.passing
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert ask(server.url) == [{"was": "q"}]
        started = time.monotonic()
        assert "no whole answer in time" in failure(ask(server.url, deadline_s=0.5)[0]).message
        assert time.monotonic() - started < 1.5
