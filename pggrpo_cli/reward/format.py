"""reward=format: 1 if the completion has a form, else 0."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pggrpo_cli.errors import ConfigError
from pggrpo_cli.types import Sample


@dataclass(frozen=True, kw_only=True)
class Format:
    """`pattern`, a regular expression in which . matches line breaks too; `mode`: the whole completion or a part."""

    pattern: str
    mode: Literal["fullmatch", "search"]

    def score(self, samples: Sequence[Sample]) -> list[float | None]:
        try:
            pattern = re.compile(self.pattern, re.DOTALL)
        except re.error as error:
            raise ConfigError(f"`reward.format.pattern`: not a regular expression: {error}") from error
        matches = pattern.fullmatch if self.mode == "fullmatch" else pattern.search
        return [float(matches(sample.completion) is not None) for sample in samples]
