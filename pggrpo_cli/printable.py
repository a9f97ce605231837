"""Text of models and data sets made safe to print: no control characters, no lone surrogates, no markup."""

from __future__ import annotations

import re
import unicodedata

_SURROGATES = re.compile("[\ud800-\udfff]")
_SPECIAL_TOKENS = re.compile(r"<\|[^|<>\n]{1,40}\|>|</?s>|<(?:start|end)_of_turn>|<[be]os>")
_REORDERING = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def without_surrogates(text: str) -> str:
    """Lone surrogates, which no UTF-8 file can hold, as U+FFFD."""
    return _SURROGATES.sub("\ufffd", text)


def printable(text: str) -> str:
    """`text` without what could steer a terminal: escape sequences lose their control character, tabs become spaces,
    newlines stay; characters that reorder a line go, lone surrogates become U+FFFD."""
    text = without_surrogates(text).replace("\r\n", "\n").replace("\t", " ").replace("\u2028", "\n")
    return "".join(char for char in text if char == "\n" or _is_harmless(char))


def _is_harmless(char: str) -> bool:
    return unicodedata.category(char) != "Cc" and char not in _REORDERING


def one_line(text: str) -> str:
    """`printable` on one line, without special tokens such as <|im_start|>, line ends shown as ⏎."""
    lines = (" ".join(line.split()) for line in printable(_SPECIAL_TOKENS.sub("", text)).split("\n"))
    return " ⏎ ".join(line for line in lines if line)
