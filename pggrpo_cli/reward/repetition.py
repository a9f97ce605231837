"""reward=repetition: a penalty for saying the same again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pggrpo_cli.ranges import Range
from pggrpo_cli.types import Sample


@dataclass(frozen=True, kw_only=True)
class Repetition:
    """−(1 − different n-grams / n-grams) of `unit`s, n = ngram_size; 0 for completions with fewer than n units.

    On words this is Demystifying Long CoT's penalty (arXiv 2502.03373) as open-r1's get_repetition_penalty_reward has
    it, with weight = −max_penalty. Words are divided by white space and compared in lower case.
    """

    ngram_size: Annotated[int, Range(ge=1)]
    unit: Literal["word", "token"]

    def score(self, samples: Sequence[Sample]) -> list[float | None]:
        return [self._score(sample) for sample in samples]

    def _score(self, sample: Sample) -> float:
        units = sample.completion_ids if self.unit == "token" else sample.completion.lower().split()
        count = len(units) - self.ngram_size + 1
        if count < 1:
            return 0.0
        different = len({tuple(units[start : start + self.ngram_size]) for start in range(count)})
        return different / count - 1
