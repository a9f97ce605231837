"""reward=think_format: 1 if the completion thinks first, between tags, and then answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pggrpo_cli.types import Sample


@dataclass(frozen=True, kw_only=True)
class ThinkFormat:
    """1 for `<opening>…<closing>` at the beginning, each tag once, and something after it; else 0.

    `opened_by_template`: the chat template has written the opening tag already, so that the completion begins within it.
    TRL's think_format_reward asks for no answer after the thoughts; this one does.
    """

    opening: str
    closing: str
    opened_by_template: bool

    def score(self, samples: Sequence[Sample]) -> list[float | None]:
        return [float(self._fits(sample.completion)) for sample in samples]

    def _fits(self, text: str) -> bool:
        expected = 0 if self.opened_by_template else 1
        if text.count(self.opening) != expected or text.count(self.closing) != 1:
            return False
        before, _, answer = text.partition(self.closing)
        begins = self.opened_by_template or before.lstrip().startswith(self.opening)
        return begins and bool(answer.strip())
