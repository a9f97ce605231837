"""Questions to a server that scores: several at once, each again until its deadline, secrets in headers alone.

What comes of a question is the JSON of the answer or a ScoreError; the reward's `on_error` says what becomes of that.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pggrpo_cli.errors import ConfigError, Unavailable
from pggrpo_cli.scoring.post import Connections, Interrupted, Refused, Reply, post, reachable
from pggrpo_cli.types import ScoreError

LONGEST_PAUSE = 60.0
SHOWN = 200
"""Characters of an answer that a message shows."""
GIVEN_UP = 2
"""So many questions in a row that the server never answered, and the rest of a call is not asked."""
AGAIN = (408, 425, 429)
"""What asks for another try, beside every 5xx."""

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

    def ask(self, questions: Sequence[Any]) -> list[Any | ScoreError]:
        """The JSON that answers each of `questions`, or why there is none."""
        call = _Call(self._url, self.shown, self._secret_headers(), self._patience)
        return call.answers([json.dumps(one, allow_nan=False).encode("ascii") for one in questions])

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


class _Call:
    """Some questions at once."""

    def __init__(self, url: str, shown: str, headers: dict[str, str], patience: Patience) -> None:
        self._url, self._shown, self._headers, self._patience = url, shown, headers, patience
        self._connections = Connections()
        self._unanswered = 0
        """Questions given up since the server last answered one."""
        self._bug: BaseException | None = None

    def answers(self, questions: Sequence[bytes]) -> list[Any | ScoreError]:
        waiting = deque(enumerate(questions))
        found: list[Any | ScoreError] = [None] * len(questions)
        threads = [
            threading.Thread(target=self._work, args=(waiting, found), name="question", daemon=True)
            for _ in range(min(self._patience.concurrency, len(questions)))
        ]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            self._connections.close()  # where a signal has come, what is under way ends with it
        if self._bug is not None:
            raise self._bug
        return found

    def _work(self, waiting: deque[tuple[int, bytes]], found: list[Any | ScoreError]) -> None:
        try:
            while waiting and not self._connections.closed.is_set():
                try:
                    place, question = waiting.popleft()
                except IndexError:  # another thread took the last
                    return
                found[place] = self._not_asked() if self._unanswered >= GIVEN_UP else self._asked(question)
        except BaseException as error:
            self._bug = error

    def _not_asked(self) -> ScoreError:
        return ScoreError(
            message=f"{self._shown} was not asked: it answered none of the questions before", passing=True
        )

    def _asked(self, question: bytes) -> Any | ScoreError:
        """Tries until there is an answer, one that will not change, or no time."""
        patience = self._patience
        deadline = time.monotonic() + patience.deadline_s
        problem = ""
        for number in range(1, patience.retries + 2):
            pause: float | None = None
            try:
                reply = post(self._url, question, self._headers, deadline, self._connections)
            except Refused as refusal:
                return ScoreError(message=f"{self._shown}: {refusal}")
            except Interrupted as error:
                problem = str(error)
            else:
                if not (reply.status in AGAIN or reply.status >= 500):
                    self._unanswered = 0
                    return self._read(reply)
                problem = f"it answered with status {reply.status}{self._quoted(reply)}"
                pause = retry_after(reply.headers.get("retry-after"))
                if pause is not None and time.monotonic() + pause >= deadline:
                    problem += f", and asked to be left alone for {pause:g} seconds"
            if pause is None:
                pause = _pauses.uniform(0, min(LONGEST_PAUSE, patience.backoff_s * 2 ** min(number - 1, 30)))
            if number > patience.retries or time.monotonic() + pause >= deadline or self._stopped(pause):
                break
        self._unanswered += 1
        tries = f"{number} tries" if number > 1 else "1 try"
        limit = (
            f"within deadline_s={patience.deadline_s:g} seconds" if number <= patience.retries else "after all retries"
        )
        return ScoreError(message=f"{self._shown}: no answer {limit} ({tries}); at last {problem}", passing=True)

    def _stopped(self, pause: float) -> bool:
        return self._connections.closed.wait(pause)

    def _read(self, reply: Reply) -> Any | ScoreError:
        if 300 <= reply.status < 400:
            where = _without_query(reply.headers.get("location", "an address that it does not name"))
            return ScoreError(message=f"{self._shown} redirects to {where}, which is not followed; give that address")
        if reply.status >= 400:
            return ScoreError(message=f"{self._shown}: status {reply.status}{self._quoted(reply)}")
        try:
            return json.loads(self._text(reply))
        except (ValueError, RecursionError):
            return ScoreError(message=f"{self._shown}: the answer is no JSON{self._quoted(reply)}")

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
