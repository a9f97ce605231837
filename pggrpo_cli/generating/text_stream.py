"""Completions that are decoded together, shown one after the other, each as it grows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from pggrpo_cli.types import FinishReason

Key = tuple[int, int]
"""(ordinal of the prompt, sample)"""
Decode = Callable[[Sequence[int]], str]
HALF = "\ufffd"
"""What a tokenizer gives for bytes that are no character, or not yet."""


class Display(Protocol):
    """Where completions go, one at a time."""

    def begin(self, ordinal: int, sample: int) -> None: ...
    def write(self, text: str) -> None:
        """What comes next of it: whole characters."""
        ...

    def end(self, token_ids: Sequence[int], text: str, finish_reason: FinishReason) -> None:
        """`text`: all of it."""
        ...


class GrowingText:
    """The text of tokens that come one by one, without half characters."""

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self.text = ""
        self._shown = 0

    def grown(self, token_ids: Sequence[int], *, ended: bool) -> str:
        """What the newest of `token_ids`, all so far, add to the text. A character whose bytes are not all there waits.

        All of them are decoded each time: tokenizers join and strip across tokens, and 4000 tokens take a millisecond.
        """
        self.text = self._decode(token_ids)
        whole = self.text if ended else self.text.rstrip(HALF)
        new = whole[self._shown :]
        self._shown = max(self._shown, len(whole))
        return new


class InOrder:
    """A Drawn (protocols.py) that shows the completions in order: of the first one each character at once; what the others
    say meanwhile waits until their turn comes."""

    def __init__(self, display: Display, decode: Decode, prompts: int, samples: int) -> None:
        self._display, self._decode = display, decode
        self._turns: Iterator[Key] = iter([(prompt, sample) for prompt in range(prompts) for sample in range(samples)])
        self._waiting: dict[Key, tuple[Sequence[int], FinishReason | None]] = {}
        self._turn: Key | None = None
        self._growing = GrowingText(decode)
        self._next()

    def __call__(self, ordinal: int, sample: int, token_ids: Sequence[int], finish_reason: FinishReason | None) -> None:
        key = (ordinal, sample)
        if key != self._turn:
            if self._turn is not None and key > self._turn:  # else told again, of one that has been shown
                self._waiting[key] = token_ids, finish_reason
            return
        self._show(token_ids, finish_reason)
        while finish_reason is not None:
            self._next()
            if self._turn not in self._waiting:
                return
            token_ids, finish_reason = self._waiting.pop(self._turn)
            self._show(token_ids, finish_reason)

    def _show(self, token_ids: Sequence[int], finish_reason: FinishReason | None) -> None:
        new = self._growing.grown(token_ids, ended=finish_reason is not None)
        if new:
            self._display.write(new)
        if finish_reason is not None:
            self._display.end(token_ids, self._growing.text, finish_reason)

    def _next(self) -> None:
        self._turn = next(self._turns, None)
        self._growing = GrowingText(self._decode)
        if self._turn is not None:
            self._display.begin(*self._turn)
