"""reward=cosine_length: right or wrong, worth more or less by length, along a cosine."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Annotated

from pggrpo_cli.protocols import Reward
from pggrpo_cli.ranges import Range
from pggrpo_cli.scoring.answers import call, opened
from pggrpo_cli.types import RewardContext, Sample, ScoreError, Scores


@dataclass(frozen=True, kw_only=True)
class CosineLength:
    """Appendix C.1 of Demystifying Long CoT (arXiv 2502.03373), as TRL's get_cosine_scaled_reward: with L = max_tokens and
    n tokens, the end token counted,

        long + (short − long) · (1 + cos(π · min(n/L, 1))) / 2,

    right_short and right_long where the reward `correct` gives more than 0, wrong_short and wrong_long elsewhere. A right
    answer is to be short; a wrong one may think on. Where `correct` does not apply or fails, so does this. The paper's
    own value for completions that reach L is left to reward=overlong.
    """

    correct: Reward
    max_tokens: Annotated[int, Range(ge=1)]
    right_short: float
    right_long: float
    wrong_short: float
    wrong_long: float

    @contextmanager
    def open(self, context: RewardContext) -> Iterator[CosineLength]:
        with opened(self.correct, "cosine_length.correct", context) as working:
            yield replace(self, correct=working)

    def score(self, samples: Sequence[Sample]) -> Scores:
        verdicts = call(self.correct, samples)
        scores = [
            verdict if verdict is None or isinstance(verdict, ScoreError) else self._value(verdict > 0, sample)
            for verdict, sample in zip(verdicts.answers, samples, strict=True)
        ]
        said = [None if isinstance(verdict, ScoreError) else verdict for verdict in verdicts.answers]
        return Scores(scores=scores, metrics=verdicts.metrics, columns={"correct": said}, notes=verdicts.notes)

    def _value(self, right: bool, sample: Sample) -> float:
        short, long = (self.right_short, self.right_long) if right else (self.wrong_short, self.wrong_long)
        reached = min(len(sample.completion_ids) / self.max_tokens, 1.0)
        return long + (short - long) * (1 + math.cos(math.pi * reached)) / 2
