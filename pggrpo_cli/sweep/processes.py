"""Several processes at a time: started, followed, stopped in an orderly way, and never left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Protocol

from pggrpo_cli.errors import ConfigError
from pggrpo_cli.interruption import CODE_OF_SIGNAL
from pggrpo_cli.scoring.reaper import Reaper

LOOK_SECONDS = 0.2
LOG = "log.txt"
TAIL_BYTES = 1 << 14
LONGEST = 600
"""Characters of a job's last words."""
NAMES_ERROR = re.compile(r"Fatal Python error|[\w.]*Error: ")
"""A line of an interpreter that dies as it starts: the last one only says that there is no frame."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """A process to be started."""

    number: int
    command: Sequence[str]
    folder: Path
    """Its output goes to log.txt there."""
    working_folder: Callable[[], str]
    environment: Callable[[int], Mapping[str, str]]
    """Variables beside our own, by the slot that the process gets."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A process that is gone. `code` as a shell has it: 128 + n for signal n."""

    number: int
    code: int
    words: str
    """The last that it wrote."""


class Watcher(Protocol):
    """Is told what happens."""

    def began(self, number: int) -> None: ...

    def ended(self, ended: Ended, *, asked: bool) -> None:
        """`asked`: it was told to stop."""
        ...

    def look(self) -> None:
        """Some time has passed."""
        ...

    def stopping(self, running: int) -> None: ...


@dataclass(kw_only=True)
class _Running:
    order: Order
    slot: int
    process: subprocess.Popen[bytes]
    log_began: int


class Processes:
    """Runs orders, `at_a_time` of them, each in a process group of its own: Ctrl-C on the terminal reaches only us, and what a
    process leaves behind ends with it. If we are killed, the reaper ends them all."""

    def __init__(self, at_a_time: int, watcher: Watcher, signals: Sequence[int] = (), *, again: str = "") -> None:
        """`signals`: which, beside SIGINT and SIGTERM, stop everything. `again`: the command that goes on, for whoever ends us
        at once."""
        self._at_a_time = at_a_time
        self._watcher = watcher
        self._signals = (signal.SIGINT, signal.SIGTERM, *signals)
        self._running: dict[int, _Running] = {}
        self._farewell = f"\nended at once. Go on from what the jobs saved before: {again}\n".encode("utf-8", "replace")
        self.stopped_by: int | None = None
        """The first signal that came."""

    def run(self, orders: Sequence[Order]) -> list[Ended]:
        """In the order in which they ended; one that cannot be started ends at once, with code 2. After a signal no more are
        started, and those that run are asked to stop; a second signal kills them and ends us."""
        waiting, ended = deque(orders), list[Ended]()
        reaper = Reaper()
        asked = False
        try:
            with self._handling():
                while (waiting and self.stopped_by is None) or self._running:
                    while waiting and self.stopped_by is None and len(self._running) < self._at_a_time:
                        ended += self._begin(waiting.popleft(), reaper)
                    if self.stopped_by is not None and not asked:
                        asked = True
                        self._watcher.stopping(len(self._running))
                        for one in self._running.values():
                            _signal_group(one, signal.SIGTERM, alone=True)
                    ended += self._look(reaper, asked=asked)
                    self._watcher.look()
                    time.sleep(LOOK_SECONDS)
        finally:
            for one in self._running.values():
                _signal_group(one, signal.SIGKILL)
            reaper.close()
        return ended

    def _begin(self, order: Order, reaper: Reaper) -> list[Ended]:
        """Those that ended of it: the disk may refuse one job's folder, and the others go on."""
        try:
            self._start(order, reaper)
        except OSError as error:
            where = "" if error.filename is None else f"{error.filename}: "
            words = f"it could not be started: {where}{error.strerror or error}"
            failed = Ended(number=order.number, code=ConfigError.exit_code, words=words)
            self._watcher.ended(failed, asked=False)
            return [failed]
        self._watcher.began(order.number)
        return []

    def _start(self, order: Order, reaper: Reaper) -> None:
        taken = {one.slot for one in self._running.values()}
        slot = next(number for number in range(self._at_a_time) if number not in taken)
        order.folder.mkdir(parents=True, exist_ok=True)
        with open(order.folder / LOG, "ab") as log:
            process = subprocess.Popen(
                order.command,
                cwd=order.working_folder(),
                env={**os.environ, **order.environment(slot)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                reaper.watch(process.pid)
                self._running[order.number] = _Running(order=order, slot=slot, process=process, log_began=log.tell())
            except BaseException:  # nobody else knows of it yet
                process.kill()
                process.wait()
                raise

    def _look(self, reaper: Reaper, *, asked: bool) -> list[Ended]:
        gone = [one for one in self._running.values() if one.process.poll() is not None]
        found = []
        for one in gone:
            _signal_group(one, signal.SIGKILL)  # what it left behind
            reaper.forget(one.process.pid)
            del self._running[one.order.number]
            code = one.process.returncode
            words = last_words(one.order.folder / LOG, one.log_began)
            if code < 0:
                words = f"{_killed(-code)}{'; its last words: ' + words if words else ''}"
            found.append(Ended(number=one.order.number, code=CODE_OF_SIGNAL - code if code < 0 else code, words=words))
            self._watcher.ended(found[-1], asked=asked)
        return found

    @contextmanager
    def _handling(self) -> Iterator[None]:
        former = {number: signal.signal(number, self._handle) for number in self._signals}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.stopped_by is None:
            self.stopped_by = number
            return
        for one in self._running.values():
            _signal_group(one, signal.SIGKILL)
        os.write(2, self._farewell)
        os._exit(CODE_OF_SIGNAL + number)


def _signal_group(one: _Running, number: int, *, alone: bool = False) -> None:
    """`alone`: the process itself and not its children, which it ends in its own way."""
    with suppress(ProcessLookupError, PermissionError):
        if alone:
            one.process.send_signal(number)
        else:
            os.killpg(one.process.pid, number)


def _killed(number: int) -> str:
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    return f"killed by {name}" + (" (memory may have run out)" if number == signal.SIGKILL else "")


def last_words(log: Path, begin: int) -> str:
    """Of what was written from byte `begin` on: all from our own last error on, else the last line that names an error of
    Python's, else the last line; as one line."""
    try:
        with open(log, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(begin, size - TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    errors = [place for place, line in enumerate(lines) if line.startswith("error: ")]
    named = [line for line in lines if NAMES_ERROR.match(line)]
    said = " ".join(lines[errors[-1] :] if errors else named[-1:] or lines[-1:]).removeprefix("error: ")
    return said if len(said) <= LONGEST else said[: LONGEST - 1] + "…"


def command_of(sweep_dir: Path, number: int) -> list[str]:
    """What runs a job; modules are found as they are here."""
    import json

    return [sys.executable, "-c", START, json.dumps(sys.path), str(sweep_dir), str(number)]


START = """
import sys
sys.path[:] = [folder for folder in sys.path if folder]  # not the folder in which it starts
import json
sys.path[:] = json.loads(sys.argv.pop(1))
from pggrpo_cli.sweep.job import main
sys.exit(main(sys.argv[1:]))
"""
