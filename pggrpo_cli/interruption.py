"""The first signal (SIGINT, SIGTERM, a scheduler's own) asks the run to stop at the next safe place; the second ends it.

Work that has changed nothing yet is abandoned at once: it is done again, with the same numbers, when the run goes on.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

CODE_OF_SIGNAL = 128
"""A program that a signal ended at once exits with this plus the signal's number: 130, 143."""


class Abandoned(BaseException):
    """A signal came within abandonable(), or a server that scores is down: work that has changed nothing is given up. No
    Exception: a user's own code must not swallow it."""


class EndedBySignal(SystemExit):
    """A signal that ends the program at once: no exit of a user's own code."""


class Interruption:
    """Set by the handler, read by the trainer between phases."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._abandonable = False
        self.on_first: Callable[[], None] | None = None
        """Says that the run will stop; set once there is something worth finishing. Until then a signal ends it."""

    @contextmanager
    def abandonable(self) -> Iterator[None]:
        """A signal within, or before, raises Abandoned."""
        self._abandonable = True
        try:
            if self.signal is not None:
                raise Abandoned
            yield
        finally:
            self._abandonable = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        if self.on_first is None:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            raise EndedBySignal(CODE_OF_SIGNAL + number)
        if self.signal is not None:
            os.write(2, b"\nended at once; what was saved before can be resumed\n")
            os._exit(CODE_OF_SIGNAL + number)
        self.signal = number
        # In a thread: the handler may have come in the middle of a print, which cannot be entered twice.
        threading.Thread(target=self.on_first, daemon=True).start()
        if self._abandonable:
            raise Abandoned


@contextmanager
def interruptible(preemption_signal: str | None = None) -> Iterator[Interruption]:
    """Installs the handlers for the time within (only a main thread can) and puts the former ones back.

    `preemption_signal`, such as SIGUSR1, is what a cluster's scheduler sends before it takes the machine away.
    """
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    numbers = [signal.SIGINT, signal.SIGTERM]
    if preemption_signal is not None:
        numbers.append(signal.Signals[preemption_signal])
    former = {number: signal.signal(number, interruption.handle) for number in numbers}
    try:
        yield interruption
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
