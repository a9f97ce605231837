"""Completions shown in order, each as it grows: whole characters, each once."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pggrpo_cli.generating.text_stream import GrowingText, InOrder
from pggrpo_cli.types import FinishReason


def decode(token_ids: Sequence[int]) -> str:
    """A token a byte."""
    return bytes(token_ids).decode("utf-8", "replace")


def grown(data: bytes) -> list[str]:
    text = GrowingText(decode)
    return [text.grown(data[:count], ended=count == len(data)) for count in range(1, len(data) + 1)]


def test_a_character_is_shown_when_its_last_byte_is_there() -> None:
    assert grown("aé€😀b".encode()) == ["a", "", "é", "", "", "€", "", "", "", "😀", "b"]


def test_bytes_that_are_no_character_are_shown_once_that_is_certain() -> None:
    assert grown(b"a\xe2\x82b") == ["a", "", "", "\ufffdb"]
    assert grown(b"a\xff") == ["a", "\ufffd"]
    assert "".join(grown(b"\xf0\x9f\x98\xe2\x82\xac\xff\xffz")) == b"\xf0\x9f\x98\xe2\x82\xac\xff\xffz".decode(
        "utf-8", "replace"
    )


class Noted:
    """A display that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def begin(self, ordinal: int, sample: int) -> None:
        self.told.append((ordinal, sample))

    def write(self, text: str) -> None:
        self.told.append(text)

    def end(self, token_ids: Sequence[int], text: str, finish_reason: FinishReason) -> None:
        self.told.append((bytes(token_ids), text, finish_reason))


def test_the_first_grows_at_once_and_the_others_wait_for_their_turn() -> None:
    noted = Noted()
    drawn = InOrder(noted, decode, prompts=2, samples=2)
    drawn(0, 0, b"a", None)
    drawn(0, 1, b"x", "stop")
    drawn(1, 1, b"q", None)
    assert noted.told == [(0, 0), "a"]
    drawn(0, 0, b"ab", "length")
    assert noted.told[2:] == ["b", (b"ab", "ab", "length"), (0, 1), "x", (b"x", "x", "stop"), (1, 0)]
    drawn(1, 0, b"r", "stop")
    assert noted.told[8:] == ["r", (b"r", "r", "stop"), (1, 1), "q"]
    drawn(1, 1, b"qu", "stop")
    assert noted.told[12:] == ["u", (b"qu", "qu", "stop")]


def test_what_is_told_again_is_not_shown_again() -> None:
    noted = Noted()
    drawn = InOrder(noted, decode, prompts=1, samples=2)
    drawn(0, 0, b"abc", None)
    for count in (1, 2, 3, 4):  # memory ran out: the same again, from the beginning
        drawn(0, 0, b"abcd"[:count], "stop" if count == 4 else None)
    drawn(0, 0, b"abcd", "stop")
    assert noted.told == [(0, 0), "abc", "d", (b"abcd", "abcd", "stop"), (0, 1)]


@pytest.mark.parametrize("text", ["", "\ufffd"])
def test_an_empty_completion_has_an_end(text: str) -> None:
    noted = Noted()
    drawn = InOrder(noted, lambda ids: text, prompts=1, samples=1)
    drawn(0, 0, [7], "stop")
    assert noted.told[-1] == (b"\x07", text, "stop")
