"""The named rewards at work: called, checked, weighted and summed. A reward that fails never silently becomes 0."""

from __future__ import annotations

import math
import numbers
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from pggrpo_cli.errors import ConfigError, PggrpoError, UserCodeError
from pggrpo_cli.prompts import PromptFormat, apply_format
from pggrpo_cli.protocols import Reward
from pggrpo_cli.types import Row, Sample

RESERVED = ("chosen", "rejected", "margins", "accuracies")
"""rewards/<these> are metrics of the preference losses."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredSamples:
    """B samples."""

    rewards: list[float]
    """[B] weighted sum of the rewards that apply; NaN where none does."""
    terms: dict[str, list[float | None]]
    """Unweighted, [B] by name."""


class Scorer:
    """Rewards by name with their weights."""

    def __init__(self, rewards: Mapping[str, tuple[Reward, float]]) -> None:
        for name in rewards:
            if name in RESERVED:
                raise ConfigError(
                    f"`reward.{name}`: the name is taken: rewards/{name} is a metric of the preference losses. "
                    "Choose another."
                )
        self._rewards = {name: reward for name, (reward, _) in rewards.items()}
        self.weights = {name: weight for name, (_, weight) in rewards.items()}

    def score(self, samples: Sequence[Sample]) -> ScoredSamples:
        """Raises UserCodeError, with the reward's own error as cause, if one raises or returns nonsense."""
        terms = {name: self._call(name, reward, samples) for name, reward in self._rewards.items()}
        rewards: list[float] = []
        for index in range(len(samples)):
            applied = [self.weights[name] * value for name in terms if (value := terms[name][index]) is not None]
            rewards.append(math.fsum(applied) if applied else math.nan)
        return ScoredSamples(rewards=rewards, terms=terms)

    def dry_run(self, rows: Sequence[Row], prompt_format: PromptFormat) -> None:
        """Calls every reward on real rows with made-up completions, so that a broken one fails before a model loads."""
        samples: list[Sample] = []
        for row in rows:
            prompt = apply_format(row, prompt_format).prompt
            for text in ("", "0", str(row.columns.get("answer", "1"))):
                sample = Sample(
                    prompt=prompt, completion=text, completion_ids=[0], finish_reason="stop", columns=row.columns
                )
                samples.append(sample)
        if samples:
            self.score(samples)

    def _call(self, name: str, reward: Reward, samples: Sequence[Sample]) -> list[float | None]:
        with _random_state_kept():
            try:
                scores = reward.score(samples)
            except PggrpoError:
                raise
            except (Exception, SystemExit) as error:
                raise UserCodeError(
                    f"`reward.{name}`: raised {type(error).__name__}: {error}. Its traceback stands above."
                ) from error
        returned = type(scores).__name__
        if hasattr(scores, "tolist"):
            scores = scores.tolist()
        if not isinstance(scores, Sequence) or isinstance(scores, str | bytes):
            raise UserCodeError(
                f"`reward.{name}`: returned {returned}; a list with one number or None for each completion is needed."
            )
        if len(scores) != len(samples):
            raise UserCodeError(
                f"`reward.{name}`: returned {len(scores)} scores for {len(samples)} completions; one each is needed."
            )
        return [_number(name, value, sample) for value, sample in zip(scores, samples, strict=True)]


def _number(name: str, value: Any, sample: Sample) -> float | None:
    if value is None:
        return None
    if not isinstance(value, numbers.Real) and callable(getattr(value, "item", None)):
        with suppress(ValueError, RuntimeError):  # an array or a tensor of one number; of more it is no number
            value = value.item()
    if isinstance(value, numbers.Real):
        with suppress(OverflowError):
            if math.isfinite(number := float(value)):
                return number
    what = repr(value) if isinstance(value, numbers.Real) else f"{type(value).__name__} {str(value)[:60]!r}"
    raise UserCodeError(
        f"`reward.{name}`: returned {what} for the completion {sample.completion[:80]!r}; a finite number or None "
        "(does not apply) is needed."
    )


@contextmanager
def _random_state_kept() -> Iterator[None]:
    """Whatever a reward does to the global generators, training does not notice."""
    state = random.getstate()
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    numpy_state = None if numpy is None else numpy.random.get_state()
    torch_state = None if torch is None else torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(state)
        if numpy is not None:
            numpy.random.set_state(numpy_state)
        if torch is not None:
            torch.set_rng_state(torch_state)
