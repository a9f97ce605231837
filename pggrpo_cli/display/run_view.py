"""What a display knows of a run: where it is, how its metrics went, how long things take. No terminal in here."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping

EVALUATION = "eval/reward"
MAIN_METRICS = ("reward", "rewards/accuracies", "loss")
"""The curve shown is of the first of these that varies: the rewards of a data set's own pairs never do."""
INTERVALS = 20
"""Steps over which the remaining time is estimated."""


class RunView:
    """Told by the trainer, read by a renderer."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.title = ""
        self.total_steps = 0
        self.step = 0
        self.phase = ""
        self.latest: dict[str, float | None] = {}
        self.history: dict[str, list[tuple[int, float]]] = {}
        self.sample: tuple[str, str, float] | None = None
        self._opened = clock()
        self._phase_began = self._opened
        self._step_ended = self._opened
        self._intervals: deque[float] = deque(maxlen=INTERVALS)
        self._pace: float | None = None

    def start(self, total_steps: int, title: str) -> None:
        self.total_steps, self.title = total_steps, title
        self._step_ended = self.clock()

    def remember(self, step: int, metrics: Mapping[str, float | None]) -> None:
        """A step of the past: it says nothing of the pace."""
        self.step = step
        self._note(step, metrics)

    def begin_phase(self, name: str) -> None:
        if name != self.phase:
            self.phase, self._phase_began = name, self.clock()

    def log(self, step: int, metrics: Mapping[str, float | None]) -> None:
        now = self.clock()
        if step > self.step:
            self._intervals.append(now - self._step_ended)
            self._pace = sum(self._intervals) / len(self._intervals)
        self._step_ended = now
        self.step = step
        self._note(step, metrics)

    def _note(self, step: int, metrics: Mapping[str, float | None]) -> None:
        of_the_run = {name: value for name, value in self.latest.items() if not name.startswith("time/")}
        self.latest = of_the_run | dict(metrics)
        for name in (*MAIN_METRICS, EVALUATION):
            value = metrics.get(name)
            if value is not None:
                self.history.setdefault(name, []).append((step, value))

    @property
    def main_metric(self) -> str:
        present = [name for name in MAIN_METRICS if self.history.get(name)]
        varying = [name for name in present if len({value for _, value in self.history[name]}) > 1]
        return next(iter(varying or present), "reward")

    @property
    def elapsed(self) -> float:
        """Seconds since the display opened."""
        return self.clock() - self._opened

    @property
    def phase_elapsed(self) -> float:
        return self.clock() - self._phase_began

    @property
    def remaining(self) -> float | None:
        """Seconds to the last step at the pace of the last few; None before the first step."""
        if self._pace is None or not self.total_steps:
            return None
        return max(0.0, self._pace * (self.total_steps - self.step) - (self.clock() - self._step_ended))


def number(value: float | None) -> str:
    """At most 7 characters: 0.531, 12.4, 1.8e-5."""
    if value is None:
        return "–"
    size = abs(value)
    if size != 0 and (size < 1e-3 or size >= 1e5):
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{value:.3f}" if size < 10 else f"{value:.1f}" if size < 1000 else f"{value:.0f}"


def whole(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"


def tenths(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f}%"


def duration(seconds: float) -> str:
    """3.2 s, 42 s, 1:24, 1:02:03."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
