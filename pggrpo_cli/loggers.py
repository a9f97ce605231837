"""All loggers as one: what the trainer tells, told to each that listens for it."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from pggrpo_cli.protocols import Logger, OpenLogger
from pggrpo_cli.types import RunContext


class Loggers:
    """Every open logger has `log`; `start`, `remember`, `phase`, `sample` and `message` are for those that show something live.

    One that raises is left out from then on: metrics.jsonl has everything, and a run is worth more than its picture.
    """

    def __init__(self, opened: Mapping[str, OpenLogger]) -> None:
        self._opened = dict(opened)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        self._tell("log", step, finite)

    def start(self, total_steps: int, title: str) -> None:
        self._tell("start", total_steps, title)

    def remember(self, step: int, metrics: Mapping[str, float | None]) -> None:
        """A line of the run's past, at a resume: for curves, not to be logged again."""
        self._tell("remember", step, dict(metrics))

    def phase(self, name: str) -> None:
        self._tell("phase", name)

    def sample(self, prompt: str, completion: str, reward: float) -> None:
        self._tell("sample", prompt, completion, reward)

    def message(self, text: str) -> None:
        self._tell("message", text)

    def _tell(self, what: str, *arguments: object) -> None:
        for name, logger in list(self._opened.items()):
            method = getattr(logger, what, None)
            if method is None:
                continue
            try:
                method(*arguments)
            except Exception as error:
                del self._opened[name]
                print(f"warning: `logger.{name}`: {type(error).__name__}: {error}. It is left out.", file=sys.stderr)


@contextmanager
def open_loggers(loggers: Mapping[str, Logger], context: RunContext) -> Iterator[Loggers]:
    """Opens all of them; closes them in reverse, whatever happened."""
    with ExitStack() as stack:
        yield Loggers({name: stack.enter_context(logger.open(context)) for name, logger in loggers.items()})
