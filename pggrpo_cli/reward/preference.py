"""reward=preference: 1 for the chosen and 0 for the rejected completion of a data set's pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pggrpo_cli.types import Sample


@dataclass(frozen=True, kw_only=True)
class Preference:
    """Does not apply to completions that were sampled."""

    def score(self, samples: Sequence[Sample]) -> list[float | None]:
        return [sample.preference for sample in samples]
