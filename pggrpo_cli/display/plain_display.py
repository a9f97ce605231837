"""The display where no terminal can redraw: a compact line a step, in a log file as readable as over a slow line."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import TracebackType

from rich.cells import cell_len, set_cell_size

from pggrpo_cli.display.run_view import RunView, duration, number, percent
from pggrpo_cli.printable import one_line, printable

SAMPLE_SECONDS = 60.0
COLUMNS: tuple[tuple[str, str, Callable[[float | None], str]], ...] = (
    ("reward", "reward", number),
    ("eval", "eval/reward", number),
    ("acc", "rewards/accuracies", percent),
    ("kl", "kl", number),
    ("len", "completions/mean_length", number),
    ("grad", "grad_norm", number),
    ("lr", "learning_rate", number),
    ("clip", "clip_ratio/region_mean", percent),
    ("loss", "loss", number),
)
"""In the order of what is left out last when the line is full."""


class PlainDisplay:
    """An open logger that prints."""

    def __init__(self, view: RunView, width: int, show_samples: bool) -> None:
        self._view = view
        self._width = width
        self._show_samples = show_samples
        self._sample_since: float | None = None
        self._silent = False

    def __enter__(self) -> PlainDisplay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    def start(self, total_steps: int, title: str) -> None:
        self._view.start(total_steps, title)
        self._print(f"{title}: {total_steps} steps")

    def remember(self, step: int, metrics: dict[str, float | None]) -> None:
        self._view.remember(step, metrics)

    def phase(self, name: str) -> None:
        if name == "loading model":  # the one wait before the first line
            self._print(f"{name} …")

    def log(self, step: int, metrics: dict[str, float | None]) -> None:
        view = self._view
        view.log(step, metrics)
        digits = len(str(view.total_steps))
        line = f"step {step:>{digits}}/{view.total_steps}"
        ending = ""
        if metrics.get("step_time") is not None:
            ending += f"  {duration(metrics['step_time'] or 0.0)}"
        if view.remaining:
            ending += f"  {duration(view.remaining)} left"
        for label, key, write in COLUMNS:
            if metrics.get(key) is not None:
                part = f"  {label} {write(metrics[key])}"
                if cell_len(line + part + ending) < self._width:
                    line += part
        if metrics.get("updates/skipped"):
            ending += f"  {number(metrics['updates/skipped'])} updates skipped"
        self._print(line + ending)

    def sample(self, prompt: str, completion: str, reward: float) -> None:
        now = self._view.clock()
        if not self._show_samples or (self._sample_since is not None and now - self._sample_since < SAMPLE_SECONDS):
            return
        self._sample_since = now
        asked, said = one_line(prompt), one_line(completion) or "(nothing)"
        room = self._width - 6
        self._print(f"    > {_end(asked, room)}")
        self._print(f"    < {_beginning(said, room)}")
        self._print(f"      reward {number(reward)}")

    def message(self, text: str) -> None:
        self._print(printable(text))

    def _print(self, text: str) -> None:
        """Whoever reads may go away (`| head`): the run goes on without them."""
        if self._silent:
            return
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        try:
            print(text.encode(encoding, "replace").decode(encoding), flush=True)
        except (OSError, ValueError):
            self._silent = True
            drop_output()


def _beginning(text: str, room: int) -> str:
    return text if cell_len(text) <= room else set_cell_size(text, room - 1) + "…"


def _end(text: str, room: int) -> str:
    return text if cell_len(text) <= room else "…" + set_cell_size(text[::-1], room - 1).rstrip()[::-1]


def drop_output() -> None:
    """What still sits in stdout's buffer goes nowhere, or the interpreter would complain at exit."""
    try:
        descriptor = sys.stdout.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
    except (OSError, ValueError):
        return
