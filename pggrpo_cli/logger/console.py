"""The run on the terminal: a live panel where a terminal can redraw, plain lines elsewhere.

What it opens is a Logger and a `Display`: beside `log`, the trainer tells it what is going on.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from pggrpo_cli.display.run_view import RunView
    from pggrpo_cli.types import RunContext

MIN_LIVE_COLUMNS = 36
FILE_COLUMNS = 160
"""Of a line where no terminal sets its width."""


class Display(Protocol):
    """What an open logger may have beside `log`; the trainer calls what is there."""

    def start(self, total_steps: int, title: str) -> None:
        """Everything is loaded; the run goes to `total_steps`."""
        ...

    def remember(self, step: int, metrics: dict[str, float | None]) -> None:
        """A line of the run's past, at a resume."""
        ...

    def phase(self, name: str) -> None:
        """From now on: "loading model", "rollout", "score", "update", "evaluation", "checkpoint"."""
        ...

    def sample(self, prompt: str, completion: str, reward: float) -> None:
        """A completion that may be shown."""
        ...

    def message(self, text: str) -> None:
        """A line that must be shown."""
        ...

    def log(self, step: int, metrics: dict[str, float | None]) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Console:
    """Prints on stdout. Colours go by NO_COLOR, redrawing by TERM; nothing of a model is read as markup."""

    style: Literal["auto", "live", "plain"]
    samples: bool

    @contextmanager
    def open(self, context: RunContext) -> Iterator[Display]:
        from pggrpo_cli.display.run_view import RunView

        with open_display(RunView(), self.style, self.samples) as display:
            yield display


@contextmanager
def open_display(view: RunView, style: Literal["auto", "live", "plain"], samples: bool) -> Iterator[Display]:
    """What shows `view` on stdout: a panel or lines."""
    from pggrpo_cli.display.live_display import LiveDisplay
    from pggrpo_cli.display.plain_display import PlainDisplay

    if style == "live" or (style == "auto" and can_redraw()):
        import rich.console

        console = rich.console.Console(
            force_terminal=True, highlight=False, markup=False, emoji=False, legacy_windows=False
        )
        with LiveDisplay(console, view, samples) as live:
            yield live
    else:
        width = shutil.get_terminal_size((80, 24)).columns if sys.stdout.isatty() else FILE_COLUMNS
        with PlainDisplay(view, width, samples) as plain:
            yield plain


def can_redraw() -> bool:
    stdout = sys.stdout
    if stdout is None or not stdout.isatty() or os.environ.get("TERM", "") in ("", "dumb", "unknown"):
        return False
    speaks_unicode = (stdout.encoding or "").lower().replace("-", "") in ("utf8", "utf16", "utf32")
    return speaks_unicode and shutil.get_terminal_size((80, 24)).columns >= MIN_LIVE_COLUMNS
