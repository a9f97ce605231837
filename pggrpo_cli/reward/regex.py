"""reward=regex: 1 if a pattern that may hold the row's own values matches, else 0."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pggrpo_cli.errors import ConfigError, DataError
from pggrpo_cli.types import Sample

_COLUMN = re.compile(r"\{([A-Za-z_]\w*)\}")


@dataclass(frozen=True, kw_only=True)
class Regex:
    """`pattern`, in which {column} stands for the text of the row's column, taken literally; . matches line breaks too.

    A quantifier such as {2,3} is none of a column.
    """

    pattern: str
    mode: Literal["fullmatch", "search"]
    ignore_case: bool

    def score(self, samples: Sequence[Sample]) -> list[float | None]:
        return [float(self._matches(sample)) for sample in samples]

    def _matches(self, sample: Sample) -> bool:
        flags = re.DOTALL | (re.IGNORECASE if self.ignore_case else 0)
        try:
            pattern = re.compile(_COLUMN.sub(lambda match: self._literal(match[1], sample), self.pattern), flags)
        except re.error as error:
            raise ConfigError(f"`reward.regex.pattern`: not a regular expression: {error}") from error
        match = pattern.fullmatch if self.mode == "fullmatch" else pattern.search
        return match(sample.completion) is not None

    def _literal(self, column: str, sample: Sample) -> str:
        if column not in sample.columns:
            raise DataError(
                f"`reward.regex.pattern`: {{{column}}} is no column of the rows; they have "
                f"{', '.join(map(repr, sample.columns)) or 'none beside the prompt'}."
            )
        return re.escape(str(sample.columns[column]))
