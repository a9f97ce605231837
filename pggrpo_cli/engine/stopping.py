"""When a completion ends: an end token, a stop string in its decoded text, or its length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pggrpo_cli.types import FinishReason


@dataclass(frozen=True, kw_only=True, slots=True)
class StopRule:
    """The end token, and the token that completed a stop string, belong to the completion."""

    end_token_ids: frozenset[int]
    stop: tuple[str, ...]
    max_new_tokens: int
    tokenizer: Any

    def reason(self, token_ids: Sequence[int]) -> FinishReason | None:
        """Why a completion ends with the last of `token_ids`; None if it goes on."""
        if token_ids[-1] in self.end_token_ids or self._stop_string(token_ids):
            return "stop"
        return "length" if len(token_ids) >= self.max_new_tokens else None

    def _stop_string(self, token_ids: Sequence[int]) -> bool:
        if not self.stop:
            return False
        # A token is a byte at least; 8 tokens more, lest the cut splits a character that belongs to the string.
        window = max(len(text.encode()) for text in self.stop) + 8
        text = self.tokenizer.decode(token_ids[-window:], skip_special_tokens=False)
        return any(stop in text for stop in self.stop)
