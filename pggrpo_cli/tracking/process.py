"""The process of one tracker: lines of JSON on its standard input, words for the user on its standard output.

First line: which tracker, its settings, the run. Then a line a step, then how the run ended. It ends when its input does,
and after close_seconds whatever the library does meanwhile.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

FIRST_PAUSE, LONGEST_PAUSE = 5.0, 60.0
"""Seconds between attempts while a server is down."""

SAMPLE_COLUMNS = ("prompt", "completion", "reward")


class Session(Protocol):
    """An open run of a tracker: `Session(settings, run, config)` of a file in logger/ opens it. Raises whatever its
    library raises, which is tried again later; ValueError: this line cannot be sent, ever."""

    words: str
    """Where the run is to be seen; empty: nothing to say."""

    def log(self, step: int, metrics: dict[str, float], samples: list[list[Any]]) -> None:
        """`samples`: rows of SAMPLE_COLUMNS, often none."""
        ...

    def close(self, status: str) -> None:
        """`status`: finished, stopped or failed."""
        ...


def main() -> None:
    words = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # what the library prints goes to the log
    first = json.loads(sys.stdin.buffer.readline() or b"null")
    if first is None:
        return
    sys.argv = ["pggrpo"]  # trackers keep it

    def tell(kind: str, text: str) -> None:
        with suppress(OSError):  # the run is gone
            print(json.dumps({"kind": kind, "text": text}), file=words, flush=True)

    try:
        Work(first, tell).run()
    finally:
        tell("end", "")
        os._exit(0)  # exit handlers of a library may wait for a server


class Work:
    """What is to be sent, in its order; what fails is tried again."""

    def __init__(self, first: dict[str, Any], tell: Callable[[str, str], None]) -> None:
        self._first = first
        self._tell = tell
        self._session: Session | None = None
        self._lines: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._ended = threading.Event()
        self._warned = False
        self._status = "stopped"
        self._pause = FIRST_PAUSE

    def run(self) -> None:
        threading.Thread(target=self._read, daemon=True).start()
        self._try(self._open)
        while (line := self._lines.get()) is not None:
            if "end" in line:
                self._status = line["end"]
            elif not self._try(lambda line=line: self._send(line)):  # type: ignore[misc]
                self._tell("warn", f"step {line['step']} and what follows could not be sent; it is in metrics.jsonl")
                break
        if self._session is not None:
            self._attempt(lambda: self._opened().close(self._status))

    def _read(self) -> None:
        """In a thread, so that the pipe is never full."""
        for line in sys.stdin.buffer:
            try:
                self._lines.put(json.loads(line))
            except ValueError:
                break  # half a line: the run was killed
        self._lines.put(None)
        self._ended.set()
        timer = threading.Timer(float(self._first["close_seconds"]), self._give_up)
        timer.daemon = True
        timer.start()

    def _give_up(self) -> None:
        self._tell("warn", f"was not done after {self._first['close_seconds']:g} s; the rest is in metrics.jsonl")
        self._tell("end", "")
        os._exit(0)

    def _try(self, action: Callable[[], None]) -> bool:
        """Until it succeeds; False: the run has ended, and a last attempt failed."""
        last = False
        while not self._attempt(action):
            if last:
                return False
            last = self._ended.wait(self._pause)
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
        self._pause = FIRST_PAUSE
        return True

    def _attempt(self, action: Callable[[], None]) -> bool:
        try:
            action()
        except BaseException as error:  # libraries end the program, too
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            if not self._warned:
                self._warned = True
                reason = " ".join(str(error).split())[:300]
                again = "this step is left out" if self._never(error) else "it is tried again"
                self._tell("warn", f"{type(error).__name__}: {reason}; {again}, and training goes on")
            return self._never(error)
        return True

    def _never(self, error: BaseException) -> bool:
        return isinstance(error, (ValueError, TypeError)) and self._session is not None

    def _open(self) -> None:
        module = import_module(f"pggrpo_cli.logger.{self._first['name']}")
        self._session = module.Session(self._first["settings"], self._first["run"], self._first["config"])
        if self._opened().words:
            self._tell("say", self._opened().words)

    def _opened(self) -> Session:
        assert self._session is not None
        return self._session

    def _send(self, line: dict[str, Any]) -> None:
        if self._session is None:
            self._open()
        finite = {name: value for name, value in line["metrics"].items() if value is not None}
        self._opened().log(line["step"], finite, line.get("samples", []))
        self._keep(line["step"])

    def _keep(self, step: int) -> None:
        """The last step that was sent, beside the run's id: a resumed run does not send it again."""
        file = Path(self._first["run"]["state"])
        known = {name: self._first["run"][name] for name in ("id", "name", "group")}
        temporary = file.with_name(f".{file.name}.tmp")
        try:
            temporary.write_text(json.dumps({**known, "last_step": step}) + "\n", encoding="utf-8")
            os.replace(temporary, file)
        except OSError as error:
            print(f"{file}: {error}", file=sys.stderr, flush=True)
