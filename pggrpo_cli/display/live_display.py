"""The live display on a terminal: one panel that is redrawn in place, messages above it."""

from __future__ import annotations

import contextlib
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from pggrpo_cli.display.panel import panel
from pggrpo_cli.display.run_view import RunView
from pggrpo_cli.printable import printable

REFRESHES_PER_SECOND = 4
SAMPLE_SECONDS = 5.0
"""A completion stays at least so long: long enough to be read."""


class LiveDisplay:
    """An open logger. The latest messages stand below the panel until the next phase moves them up, out of its way."""

    def __init__(self, console: Console, view: RunView, show_samples: bool) -> None:
        self._console = console
        self._view = view
        self._show_samples = show_samples
        self._sample_since: float | None = None
        self._messages: list[str] = []
        self._live = Live(
            console=console,
            get_renderable=self._render,
            refresh_per_second=REFRESHES_PER_SECOND,
            vertical_overflow="crop",
        )

    def __enter__(self) -> LiveDisplay:
        self._live.start()
        # A killed process cannot bring the cursor back, so it is not taken away.
        self._console.show_cursor(True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        messages, self._messages = self._messages, []
        self._view.phase = ""
        self._live.transient = not self._view.total_steps  # nothing began: leave only the words
        with contextlib.suppress(OSError):
            self._live.stop()
            for message in messages:
                self._console.print(Text(message), soft_wrap=True)

    def start(self, total_steps: int, title: str) -> None:
        self._view.start(total_steps, title)

    def remember(self, step: int, metrics: dict[str, float | None]) -> None:
        self._view.remember(step, metrics)

    def phase(self, name: str) -> None:
        self._move_messages_up()
        self._view.begin_phase(name)

    def log(self, step: int, metrics: dict[str, float | None]) -> None:
        self._view.log(step, metrics)

    def sample(self, prompt: str, completion: str, reward: float) -> None:
        now = self._view.clock()
        if self._show_samples and (self._sample_since is None or now - self._sample_since >= SAMPLE_SECONDS):
            self._sample_since = now
            self._view.sample = (prompt, completion, reward)

    def message(self, text: str) -> None:
        self._messages.append(printable(text))

    def _move_messages_up(self) -> None:
        messages, self._messages = self._messages, []
        with contextlib.suppress(OSError):
            for message in messages:
                self._console.print(Text(message), soft_wrap=True)

    def _render(self) -> RenderableType:
        width, height = self._console.size
        messages = [Text(message) for message in list(self._messages)]
        return Group(panel(self._view, width, height - 1), *messages)
