"""reward=math_verify: 1 if the completion's mathematical answer equals the right one, by the math-verify library."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pggrpo_cli.errors import ConfigError, DataError
from pggrpo_cli.types import Sample, ScoreError


@dataclass(frozen=True, kw_only=True)
class MathVerify:
    """The column `answer_column` against what math-verify finds in the completion: LaTeX (a \\boxed{} first) or a plain
    expression. None (does not apply) for a row whose answer the library cannot read; a completion without an answer is 0.

    The library stops itself by SIGALRM, which only a main thread can: run it isolated. Its time limits are switched off
    here; `timeout_s` kills the process instead, which also ends what SIGALRM cannot, such as a power of huge numbers.
    """

    answer_column: str

    def score(self, samples: Sequence[Sample]) -> list[float | ScoreError | None]:
        try:
            import math_verify
        except ImportError as error:
            raise ConfigError("`reward.math_verify`: not installed: pip install 'pggrpo[math]'") from error
        logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns of the time limits that are off on purpose
        return [self._score(math_verify, sample) for sample in samples]

    def _score(self, library: Any, sample: Sample) -> float | ScoreError | None:
        if self.answer_column not in sample.columns:
            raise DataError(
                f"`reward.math_verify.answer_column`: a row has no column {self.answer_column!r}; it has "
                f"{', '.join(map(repr, sample.columns)) or 'none beside the prompt'}."
            )
        right = str(sample.columns[self.answer_column])
        # A bare answer such as \frac{1}{2} is LaTeX only between dollars; numbers and expressions are read either way.
        gold = library.parse(right, parsing_timeout=None) or library.parse(f"${right}$", parsing_timeout=None)
        if not gold:
            return None
        found = library.parse(sample.completion, parsing_timeout=None)
        return float(bool(found) and library.verify(gold, found, timeout_seconds=None))
