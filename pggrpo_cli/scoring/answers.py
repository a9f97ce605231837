"""What a reward returned, checked: a number, None or a ScoreError for each completion. Knows neither torch nor numpy."""

from __future__ import annotations

import math
import numbers
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any

from pggrpo_cli.errors import ConfigError, PggrpoError
from pggrpo_cli.interruption import EndedBySignal
from pggrpo_cli.types import RewardContext, Sample, ScoreError, Scores

Answer = float | ScoreError | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Answers:
    """B samples."""

    answers: list[Answer]
    """[B]"""
    metrics: Mapping[str, float] = field(default_factory=dict)
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """[B] each"""
    seconds: float = 0.0
    """That the reward was at work."""
    notes: Sequence[str] = ()


def all_failed(count: int, message: str, trace: str = "", seconds: float = 0.0) -> Answers:
    """The same ScoreError for each of `count` samples."""
    return Answers(answers=[ScoreError(message=message, traceback=trace)] * count, seconds=seconds)


@contextmanager
def opened(reward: Any, name: str, context: RewardContext) -> Iterator[Any]:
    """The working object of a reward: what its `open` yields, or itself. Raises ConfigError if that cannot score."""
    with reward.open(context) if callable(getattr(reward, "open", None)) else nullcontext(reward) as working:
        if not callable(getattr(working, "score", None)):
            raise ConfigError(
                f"`reward.{name}._target_`: {type(working).__module__}.{type(working).__qualname__} has no method "
                "score(samples), which a reward needs; for a plain function use reward=python."
            )
        yield working


def described(reward: Any) -> str:
    """What a reward says of itself, for the plan; empty if it says nothing."""
    describe = getattr(reward, "describe", None)
    return str(describe()) if callable(describe) else ""


def call(reward: Any, samples: Sequence[Sample]) -> Answers:
    """`reward.score(samples)`; what it raises, unless it is an error of ours, fails all of its samples."""
    began = time.perf_counter()
    try:
        returned = reward.score(samples)
    except (PggrpoError, EndedBySignal):
        raise
    except (Exception, SystemExit) as error:
        trace = "".join(traceback.format_exception(error))
        message = f"raised {type(error).__name__}: {error}"
        return all_failed(len(samples), message, trace, time.perf_counter() - began)
    seconds = time.perf_counter() - began
    scores = returned if isinstance(returned, Scores) else Scores(scores=returned)
    return Answers(
        answers=_checked(scores.scores, len(samples)),
        metrics=scores.metrics,
        columns=scores.columns,
        notes=scores.notes,
        seconds=seconds,
    )


def _checked(scores: Any, count: int) -> list[Answer]:
    kind = type(scores).__name__
    if hasattr(scores, "tolist"):
        scores = scores.tolist()
    problem = ""
    if not isinstance(scores, Sequence) or isinstance(scores, str | bytes):
        problem = f"returned {kind}; a list with one number or None for each completion is needed"
    elif len(scores) != count:
        problem = f"returned {len(scores)} scores for {count} completions; one each is needed"
    return [ScoreError(message=problem)] * count if problem else [_answer(value) for value in scores]


def _answer(value: Any) -> Answer:
    if value is None or isinstance(value, ScoreError):
        return value
    if not isinstance(value, numbers.Real) and callable(getattr(value, "item", None)):
        with suppress(ValueError, RuntimeError):  # an array or a tensor of one number; of more it is no number
            value = value.item()
    if isinstance(value, numbers.Real):
        with suppress(OverflowError):
            if math.isfinite(number := float(value)):
                return number
    what = f"{value!r:.60}" if isinstance(value, numbers.Real) else f"{type(value).__name__} {str(value)[:60]!r}"
    return ScoreError(message=f"returned {what}; a finite number or None (does not apply) is needed")
