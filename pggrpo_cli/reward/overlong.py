"""reward=overlong: DAPO's soft punishment of completions that come near their limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pggrpo_cli.errors import ConfigError
from pggrpo_cli.ranges import Range
from pggrpo_cli.types import Sample


@dataclass(frozen=True, kw_only=True)
class Overlong:
    """Equation 13 of DAPO (arXiv 2503.14476), L = max_tokens, c = margin_tokens:

    0 up to L − c tokens, then (L − c − tokens) / c down to −1 at L, and −1 beyond.
    """

    max_tokens: Annotated[int, Range(ge=1)]
    margin_tokens: Annotated[int, Range(ge=1)]

    def score(self, samples: Sequence[Sample]) -> list[float | None]:
        if self.margin_tokens > self.max_tokens:
            raise ConfigError(
                f"`reward.overlong.margin_tokens`: {self.margin_tokens} is more than max_tokens={self.max_tokens}."
            )
        free = self.max_tokens - self.margin_tokens
        return [-min(1.0, max(0.0, (len(sample.completion_ids) - free) / self.margin_tokens)) for sample in samples]
