"""Questions to a server that scores: several at once, each again until its deadline, secrets in headers alone.

What comes of a question is the JSON of the answer or a ScoreError; the reward's `on_error` says what becomes of that.
"""

from __future__ import annotations

import json
import math
import os
import queue
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal
from urllib.parse import urlsplit

from pggrpo_cli.errors import ConfigError, Unavailable
from pggrpo_cli.scoring.post import Connections, Interrupted, Late, Refused, Reply, Unreachable, post, reachable
from pggrpo_cli.types import ScoreError

LONGEST_PAUSE = 60.0
SHOWN = 200
"""Characters of an answer that a message shows."""
GIVEN_UP = 2
"""So many questions that nobody was there for, and the rest of a call is not asked."""
BUSY = (425, 429)
"""The server wants to be asked later: no fault of the question."""
AWAY = (408, 502, 503, 504)
"""Somebody says that the server is down, or too slow for this question."""

Came = Callable[[Sequence[tuple[int, Any]]], None]
"""Told of the answers as they come, each with the place of its question."""

_pauses = random.SystemRandom()
"""For the length of pauses alone: nothing that is drawn here reaches a score, and the run's generators stay as they are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """How long one question is asked, and how many at once."""

    retries: int
    deadline_s: float
    """For one question with all its tries."""
    backoff_s: float
    """Full jitter: before try n + 1 a pause between 0 and backoff_s · 2ⁿ⁻¹."""
    concurrency: int


class Server:
    """A url. `headers`: header → (what stands before the secret, name of the environment variable that holds it)."""

    def __init__(self, key: str, url: str, headers: Mapping[str, tuple[str, str]], patience: Patience) -> None:
        self._key, self._url, self._headers, self._patience = key, url, dict(headers), patience
        self.shown = _without_query(url)

    def refuse_unreachable(self) -> None:
        """Raises Unavailable if nothing listens there."""
        problem = reachable(self._url, self._patience.deadline_s)
        if problem:
            raise Unavailable(
                f"`{self._key}.url`: nothing answers at {self.shown}: {problem}. Start the server, or give the address "
                f"that it has with {self._key}.url=…"
            )

    def ask(self, questions: Sequence[Any], came: Came | None = None) -> list[Any | ScoreError]:
        """The JSON that answers each of `questions`, or why there is none. `came` is called in this thread."""
        call = _Call(self._url, self.shown, self._secret_headers(), self._patience)
        return call.answers([json.dumps(one, allow_nan=False).encode("ascii") for one in questions], came)

    def _secret_headers(self) -> dict[str, str]:
        """Read anew for every call: a secret that is renewed counts, and nothing here keeps one."""
        found = {}
        for header, (before, variable) in self._headers.items():
            value = os.environ.get(variable, "").strip()
            if not value or not value.isascii() or not value.isprintable():
                what = "holds a character that no header may hold" if value else "is not set"
                raise ConfigError(f"`{self._key}`: the environment variable {variable}, for {header}, {what}.")
            found[header] = before + value
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class _Failure:
    """A try without an answer that counts; the next one may bring it."""

    problem: str
    began: float
    at_fault: Literal["the server", "the question", "either"]
    nobody: Literal["no", "silent", "not even connected"] = "no"
    """Whether anything was there that answers."""
    pause: float | None = None
    """Seconds that the server asked for."""


@dataclass(frozen=True, slots=True)
class _Bug:
    error: BaseException


class _Call:
    """Some questions at once."""

    def __init__(self, url: str, shown: str, headers: dict[str, str], patience: Patience) -> None:
        self._url, self._shown, self._headers, self._patience = url, shown, headers, patience
        self._connections = Connections()
        self._finished: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        self._heard = False
        """Whether the server said anything yet."""
        self._silent = self._unconnected = 0
        """Questions given up: for silence; in a row, for want of a connection."""
        self._last_answer = -math.inf
        self._unclear: dict[int, float] = {}
        """Questions given up where it or the server may be at fault, and when the last try began."""

    def answers(self, questions: Sequence[bytes], came: Came | None) -> list[Any | ScoreError]:
        waiting = deque(enumerate(questions))
        found: list[Any | ScoreError] = [None] * len(questions)
        left = len(questions)
        try:
            for _ in range(min(self._patience.concurrency, left)):
                threading.Thread(target=self._work, args=(waiting,), name="question", daemon=True).start()
            while left:
                news = [self._finished.get()]
                while not self._finished.empty():
                    news.append(self._finished.get())
                for place, answer in news:
                    if isinstance(answer, _Bug):
                        raise answer.error
                    found[place] = answer
                left -= len(news)
                if came is not None:
                    came(news)
        finally:
            self._connections.close()  # where a signal has come, what is under way ends with it
        for place, began in self._unclear.items():
            if began < self._last_answer:  # the server was there for others
                found[place] = replace(found[place], passing=False)
        return found

    def _work(self, waiting: deque[tuple[int, bytes]]) -> None:
        try:
            while waiting and not self._connections.closed.is_set():
                try:
                    place, question = waiting.popleft()
                except IndexError:  # another thread took the last
                    return
                self._finished.put((place, self._not_asked() if self._is_down() else self._asked(place, question)))
        except BaseException as error:
            self._finished.put((-1, _Bug(error)))

    def _is_down(self) -> bool:
        """One that is silent may choke on these questions alone; not so one that never said a word, or is not there."""
        return self._unconnected >= GIVEN_UP or (self._silent >= GIVEN_UP and not self._heard)

    def _not_asked(self) -> ScoreError:
        return ScoreError(
            message=f"{self._shown} was not asked: nobody was there for the questions before", passing=True
        )

    def _asked(self, place: int, question: bytes) -> Any | ScoreError:
        """Tries until there is an answer, one that will not change, or no time."""
        patience = self._patience
        deadline = time.monotonic() + patience.deadline_s
        number = 0
        while True:
            number += 1
            failure = self._try(question, deadline)
            if not isinstance(failure, _Failure):
                return failure
            pause = failure.pause
            if pause is None:
                pause = _pauses.uniform(0, min(LONGEST_PAUSE, patience.backoff_s * 2 ** min(number - 1, 30)))
            if number > patience.retries or time.monotonic() + pause >= deadline or self._stopped(pause):
                return self._given_up(place, failure, number)

    def _given_up(self, place: int, failure: _Failure, number: int) -> ScoreError:
        """After try number `number`."""
        self._silent += failure.nobody != "no"
        self._unconnected += failure.nobody == "not even connected"
        if failure.at_fault == "either":
            self._unclear[place] = failure.began
        limit = "after all retries"
        if number <= self._patience.retries:
            limit = f"within deadline_s={self._patience.deadline_s:g} seconds"
            if failure.pause is not None:
                limit += f", and it asked to be left alone for {failure.pause:g} seconds"
        tries = f"{number} tries" if number > 1 else "1 try"
        message = f"{self._shown}: no answer {limit} ({tries}); at last {failure.problem}"
        return ScoreError(message=message, passing=failure.at_fault != "the question")

    def _try(self, question: bytes, deadline: float) -> Any | ScoreError | _Failure:
        began = time.monotonic()
        try:
            reply = post(self._url, question, self._headers, deadline, self._connections)
        except Refused as refusal:
            self._heard = True
            return ScoreError(message=f"{self._shown}: {refusal}")
        except Unreachable as error:
            return _Failure(problem=str(error), began=began, at_fault="the server", nobody="not even connected")
        except Late as error:
            return _Failure(problem=str(error), began=began, at_fault="either", nobody="silent")
        except Interrupted as error:
            return _Failure(problem=str(error), began=began, at_fault="either")
        self._heard, self._unconnected = True, 0
        if reply.status in BUSY or reply.status in AWAY or reply.status >= 500:
            return self._put_off(reply, began)
        self._last_answer = time.monotonic()
        if reply.status >= 300:
            return self._refusal(reply)
        try:
            return json.loads(self._text(reply))
        except (ValueError, RecursionError):
            problem = f"the answer is no JSON{self._quoted(reply)}"
        if reply.whole:
            return ScoreError(message=f"{self._shown}: {problem}")
        return _Failure(problem=f"{problem}, or only its beginning", began=began, at_fault="the question")

    def _put_off(self, reply: Reply, began: float) -> _Failure:
        return _Failure(
            problem=f"it answered with status {reply.status}{self._quoted(reply)}",
            began=began,
            at_fault="the server" if reply.status in BUSY else "either" if reply.status in AWAY else "the question",
            pause=retry_after(reply.headers.get("retry-after")),
        )

    def _stopped(self, pause: float) -> bool:
        return self._connections.closed.wait(pause)

    def _refusal(self, reply: Reply) -> ScoreError:
        if reply.status < 400:
            where = _without_query(reply.headers.get("location", "an address that it does not name"))
            return ScoreError(message=f"{self._shown} redirects to {where}, which is not followed; give that address")
        return ScoreError(message=f"{self._shown}: status {reply.status}{self._quoted(reply)}")

    def _quoted(self, reply: Reply) -> str:
        words = " ".join(self._text(reply)[: 4 * SHOWN].split())[:SHOWN]
        return f": {words!r}" if words else ""

    def _text(self, reply: Reply) -> str:
        """Without our secrets, which some servers repeat when they refuse them."""
        text = reply.body.decode("utf-8", "replace")
        for value in self._headers.values():
            for secret in sorted({value, *value.split()}, key=len, reverse=True):
                if len(secret) >= 6 and secret not in ("Bearer", "Basic"):
                    text = text.replace(secret, "[secret]")
        return text


def retry_after(value: str | None) -> float | None:
    """Seconds from now, of a Retry-After header: a number of them, or a date. None if it says neither."""
    import email.utils

    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _without_query(url: str) -> str:
    """For messages: what stands behind the question mark, or before an @, may be secret."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "an address that cannot be read"
    return parts._replace(query="", fragment="", netloc=parts.netloc.rpartition("@")[2]).geturl()
