"""reward=length: nearness to a length in tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pggrpo_cli.ranges import Range
from pggrpo_cli.types import Sample


@dataclass(frozen=True, kw_only=True)
class Length:
    """1 − |tokens − target_tokens| / scale_tokens, never below −1. The end token counts."""

    target_tokens: Annotated[int, Range(ge=1)]
    scale_tokens: Annotated[float, Range(gt=0)]

    def score(self, samples: Sequence[Sample]) -> list[float | None]:
        return [
            max(-1.0, 1 - abs(len(sample.completion_ids) - self.target_tokens) / self.scale_tokens)
            for sample in samples
        ]
