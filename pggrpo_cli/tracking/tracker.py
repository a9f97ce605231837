"""A tracker as an open logger: what the trainer says goes through a queue to the process that has the library.

The library is never imported here. What it does to a process (threads, exit handlers, random numbers, what is printed) it
does to its own; if it hangs, that process is killed when time is up.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pggrpo_cli.errors import StoppedEarly
from pggrpo_cli.json_file import read_object
from pggrpo_cli.printable import printable
from pggrpo_cli.private_values import public
from pggrpo_cli.run_directory import read_config, shown
from pggrpo_cli.tracking.identity import identity_of
from pggrpo_cli.warn import warn

if TYPE_CHECKING:
    from pggrpo_cli.types import RunContext

QUEUE = 10_000
"""Lines that wait for the process; more are lost, with a warning, until the next resume."""

GRACE = 3.0
"""Seconds beyond close_seconds, in which the process ends itself."""

SILENCE = 5.0
"""Seconds that the end may take before it is said what is waited for."""

SAMPLE_CHARACTERS = 4000

START = """
import sys
sys.path[:] = [folder for folder in sys.path if folder]  # not the folder in which it starts
import json
sys.path[:] = json.loads(sys.argv[1])
from pggrpo_cli.tracking.process import main
main()
"""


@contextmanager
def tracked(
    name: str, settings: Mapping[str, Any], context: RunContext, *, sample_every: int | None, close_seconds: float
) -> Iterator[Tracker]:
    """`name`: of the file in logger/ whose Session the process opens, at the first line that is logged."""
    tracker = Tracker(name, settings, context.run_dir, sample_every, close_seconds)
    status = "failed"
    try:
        yield tracker
        status = "finished"
    except (StoppedEarly, KeyboardInterrupt, SystemExit):
        status = "stopped"
        raise
    finally:
        tracker.close(status)


class Tracker:
    """An open logger. A step that the tracker has, because it was logged before an interruption, is not logged again."""

    def __init__(
        self, name: str, settings: Mapping[str, Any], run_dir: Path, sample_every: int | None, close_seconds: float
    ) -> None:
        self._name = name
        self._settings = dict(settings)
        self._run_dir = run_dir
        self._sample_every = sample_every
        self._close_seconds = close_seconds
        self._known = read_object(run_dir / f"{name}.json").get("last_step", -1)
        self._past: list[dict[str, Any]] = []
        self._samples: list[tuple[str, str, float | None]] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._lines: queue.Queue[bytes | None] = queue.Queue(QUEUE)
        self._words: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        self._listener: threading.Thread | None = None
        self._last: bytes | None = None
        """How the run ended; beside the queue, which may be full."""
        self._lost = False
        self._gone = False

    def remember(self, step: int, metrics: dict[str, float | None]) -> None:
        """The tracker may lack it: it was down, or it is new to this run."""
        if step > self._known:
            self._past.append({"step": step, "metrics": metrics})

    def sample(self, prompt: str, completion: str, reward: float) -> None:
        if self._sample_every is not None:
            self._samples = self._samples[1 - self._sample_every :] if self._sample_every > 1 else []
            self._samples.append((prompt[-SAMPLE_CHARACTERS:], completion[:SAMPLE_CHARACTERS], _finite(reward)))

    def log(self, step: int, metrics: dict[str, float | None]) -> None:
        self._say_words()
        if self._gone:
            return
        if self._process is None:
            self._start()
        if step <= self._known:
            return
        line: dict[str, Any] = {"step": step, "metrics": metrics}
        if self._samples and self._sample_every is not None and step % self._sample_every == 0:
            line["samples"], self._samples = self._samples, []
        self._put(line)

    def close(self, status: str) -> None:
        """Waits for what is still to be sent, at most close_seconds."""
        if self._process is None:
            return
        try:
            self._last = json.dumps({"end": status}).encode() + b"\n"
            with suppress(queue.Full):  # then the thread sees it behind the last line
                self._lines.put_nowait(None)
            self._wait(time.monotonic() + self._close_seconds + GRACE)
        finally:
            self._kill()
            if self._listener is not None:
                self._listener.join(1.0)
            self._say_words()

    def _start(self) -> None:
        log = self._run_dir / f"{self._name}.log"
        try:
            with open(log, "ab") as printed:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", START, json.dumps(sys.path)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=printed,
                    start_new_session=True,  # Ctrl-C passes it by
                    bufsize=0,
                )
            first = {
                "name": self._name,
                "settings": self._settings,
                "run": {**identity_of(self._run_dir, self._name), "folder": str(self._run_dir.absolute())},
                "config": {**public(read_config(self._run_dir)), "run_dir": str(shown(self._run_dir))},
                "close_seconds": self._close_seconds,
            }
        except Exception as error:
            self._gone = True
            warn(f"{self._name}: cannot be started ({error}); training goes on without it")
            self._kill()
            return
        threading.Thread(target=self._write, args=(self._process,), daemon=True).start()
        self._listener = threading.Thread(target=self._listen, args=(self._process,), daemon=True)
        self._listener.start()
        self._put(first)
        for line in self._past:
            self._put(line)
        self._past.clear()

    def _put(self, line: Mapping[str, Any]) -> None:
        try:
            self._lines.put_nowait(json.dumps(line).encode() + b"\n")
        except queue.Full:
            if not self._lost:
                self._lost = True
                warn(f"{self._name}: does not keep up; what is lost is sent when the run is resumed")

    def _write(self, process: subprocess.Popen[bytes]) -> None:
        """In a thread: a pipe that nobody reads is full one day."""
        assert process.stdin is not None
        with suppress(OSError), process.stdin as pipe:
            for line in self._waiting():
                view = memoryview(line)
                while view:
                    view = view[pipe.write(view) :]

    def _waiting(self) -> Iterator[bytes]:
        """What is to be sent, and how the run ended once it has."""
        while (line := self._lines.get()) is not None:
            yield line
            if self._last is not None and self._lines.empty():
                break
        if self._last is not None:
            yield self._last

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        """In a thread: what the process has to say, until it ends."""
        assert process.stdout is not None
        ended = False
        for line in process.stdout:
            with suppress(ValueError, AttributeError):
                told = json.loads(line)
                ended = ended or told.get("kind") == "end"
                self._words.put((told["kind"], told["text"]))
        if not ended and not self._gone:
            self._gone = True
            what = (
                f"its process ended ({process.wait()}); what it printed is in {shown(self._run_dir)}/{self._name}.log"
            )
            self._words.put(("warn", f"{what}; training goes on without it"))

    def _say_words(self) -> None:
        """In the thread that trains: another one would print into the display."""
        with suppress(queue.Empty):
            while True:
                kind, text = self._words.get_nowait()
                if kind == "warn":
                    warn(f"{self._name}: {text}")
                elif kind == "say":
                    say(f"{self._name}: {text}")

    def _wait(self, deadline: float) -> None:
        assert self._process is not None
        try:
            self._process.wait(SILENCE)
            return
        except subprocess.TimeoutExpired:
            say(f"{self._name}: sends what is left, for at most {self._close_seconds:g} s …")
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._gone = True
            warn(f"{self._name}: was not done after {self._close_seconds:g} s; the rest is in metrics.jsonl")

    def _kill(self) -> None:
        """With whatever it has started."""
        if self._process is not None and self._process.poll() is None:
            self._gone = True
            with suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def say(text: str) -> None:
    """A line on stderr that is no warning."""
    with suppress(OSError, ValueError):
        print(printable(text), file=sys.stderr, flush=True)


def _finite(value: float | None) -> float | None:
    return value if value is not None and abs(value) < float("inf") else None
