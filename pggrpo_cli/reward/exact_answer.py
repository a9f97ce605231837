"""reward=exact_answer: 1 if the answer found in the completion is the right one, else 0."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from pggrpo_cli.errors import ConfigError, DataError
from pggrpo_cli.types import Sample


@dataclass(frozen=True, kw_only=True)
class ExactAnswer:
    """The last match of `pattern` (its first group, if it has one) against column `answer_column`.

    Compared as numbers if both are ("7.0" is 7, "1,000" is 1000), else as text without surrounding space.
    """

    pattern: str
    answer_column: str

    def score(self, samples: Sequence[Sample]) -> list[float | None]:
        try:
            pattern = re.compile(self.pattern)
        except re.error as error:
            raise ConfigError(f"`reward.exact_answer.pattern`: not a regular expression: {error}") from error
        return [self._score(pattern, sample) for sample in samples]

    def _score(self, pattern: re.Pattern[str], sample: Sample) -> float:
        if self.answer_column not in sample.columns:
            raise DataError(
                f"`reward.exact_answer.answer_column`: a row has no column {self.answer_column!r}; it has "
                f"{', '.join(map(repr, sample.columns)) or 'none beside the prompt'}."
            )
        found = [match.group(match.re.groups and 1) for match in pattern.finditer(sample.completion)]
        return float(bool(found) and _same(found[-1], sample.columns[self.answer_column]))


def _same(found: str, answer: Any) -> bool:
    one, other = _decimal(found), _decimal(str(answer))
    if one is not None and other is not None:
        return one == other
    return found.strip() == str(answer).strip()


def _decimal(text: str) -> Decimal | None:
    try:
        value = Decimal(text.strip().replace(",", "").replace("−", "-"))
    except InvalidOperation:
        return None
    return value if value.is_finite() else None
