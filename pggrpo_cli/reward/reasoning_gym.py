"""reward=reasoning_gym: the task's own scorer, for data=reasoning_gym."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pggrpo_cli.errors import ConfigError, DataError
from pggrpo_cli.types import Sample


@dataclass(frozen=True, kw_only=True)
class ReasoningGym:
    """score_answer(answer, entry) of the row's task, in [0, 1]. `pattern` takes the answer out of the completion first
    (last match, its first group if it has one); no match is no answer."""

    pattern: str | None

    def score(self, samples: Sequence[Sample]) -> list[float | None]:
        return [float(self._score(sample)) for sample in samples]

    def _score(self, sample: Sample) -> float:
        task = sample.columns.get("task")
        if task is None:
            raise DataError("`reward.reasoning_gym`: the rows name no task; it scores rows of data=reasoning_gym.")
        answer: str | None = sample.completion.strip()
        if self.pattern is not None:
            found = [match.group(match.re.groups and 1) for match in re.finditer(self.pattern, sample.completion)]
            answer = found[-1].strip() if found else None
        score: float = _scorer(task).score_answer(answer, sample.columns)
        return score


@lru_cache(maxsize=8)
def _scorer(task: str) -> Any:
    try:
        from reasoning_gym import get_score_answer_fn  # noqa: F401
    except ImportError as error:
        raise ConfigError("`reward.reasoning_gym`: not installed: pip install 'pggrpo[tasks]'") from error
    import reasoning_gym

    return reasoning_gym.create_dataset(task, size=1, seed=0)
