"""A process in a sandbox, as seen from outside: messages to and fro, each with a deadline and a largest size."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from pggrpo_cli.sandbox.limits import ANSWER_BYTES, START_SECONDS

INSIDE = """
import sys
for name, source in {}:
    made = sys.modules[name] = type(sys)(name)
    exec(compile(source, name, "exec"), vars(made))
made.main()
""".format(
    [
        (f"pggrpo_cli.sandbox.{name}", Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8"))
        for name in ("speech", "inside")
    ]
)
"""What every such process runs: the package itself is not there."""


class ProgramEnded(Exception):
    """It died, said too much, or did not answer in time. Nothing of it is left."""


class NoStart(Exception):
    """The sandbox or its interpreter does not start: no fault of the program."""


class SandboxProcess:
    """Runs inside.py. Used by one thread; `kill` at the end, whatever happens."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        folder: TemporaryDirectory[str] | None = None,
        own_session: bool = False,
    ) -> None:
        self._folder, self._own_session, self._ready = folder, own_session, False
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=None if environment is None else dict(environment),
                pass_fds=pass_fds,
                cwd=None if folder is None else folder.name,
                start_new_session=own_session,
            )
        except OSError as error:
            raise NoStart(f"{command[0]}: {error.strerror or error}") from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._to, False)
        os.set_blocking(self._from, False)

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    def wait_until_ready(self) -> None:
        """Until inside.py has set its limits; before that nothing of the program has run. Raises NoStart."""
        if self._ready:
            return
        try:
            self._receive(time.monotonic() + START_SECONDS)
        except ProgramEnded:
            words = self._last_words()
            raise NoStart(words or "it ended before it had begun, without a word") from None
        self._ready = True

    def ask(self, message: bytes, deadline: float) -> bytes:
        """The answer to a message. Raises ProgramEnded, and NoStart if it is the first message."""
        if not self.alive:
            raise ProgramEnded("it has died already")
        self.wait_until_ready()
        self._send(len(message).to_bytes(4, "big") + message, deadline)
        return self._receive(deadline)

    def kill(self) -> None:
        """And whatever it has started: bubblewrap's own process takes the whole process namespace with it."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                if self._own_session:
                    os.killpg(self._process.pid, signal.SIGKILL)
                self._process.kill()
            self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        if self._folder is not None:
            self._folder.cleanup()

    def _send(self, data: bytes, deadline: float) -> None:
        view = memoryview(data)
        while view:
            self._wait(self._to, select.POLLOUT, deadline)
            try:
                view = view[os.write(self._to, view) :]
            except BlockingIOError:
                continue
            except OSError:
                raise self._ended("it died") from None

    def _receive(self, deadline: float) -> bytes:
        size = int.from_bytes(self._read(4, deadline), "big")
        if size > ANSWER_BYTES:
            raise self._ended(f"it said more than {ANSWER_BYTES >> 20} MB")
        return self._read(size, deadline)

    def _read(self, size: int, deadline: float) -> bytes:
        data = bytearray()
        while len(data) < size:
            self._wait(self._from, select.POLLIN, deadline)
            try:
                part = os.read(self._from, min(size - len(data), 1 << 16))
            except BlockingIOError:
                continue
            if not part:
                raise self._ended("it died")
            data += part
        return bytes(data)

    def _wait(self, descriptor: int, event: int, deadline: float) -> None:
        left = deadline - time.monotonic()
        poll = select.poll()
        poll.register(descriptor, event)
        if left <= 0 or not poll.poll(1000 * left):
            raise self._ended("its time was over")

    def _ended(self, why: str) -> ProgramEnded:
        if self._ready:
            self.kill()
        return ProgramEnded(why)

    def _last_words(self) -> str:
        """What the sandbox itself said: the program's stderr leads nowhere."""
        assert self._process.stderr is not None
        self._process.kill()
        self._process.wait()
        words = self._process.stderr.read(4000).decode("utf-8", "replace").strip()
        self.kill()
        return words.splitlines()[-1] if words else ""
