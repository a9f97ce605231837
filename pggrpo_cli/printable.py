"""Text of models and data sets made safe to print: no control characters, no lone surrogates, no markup."""

from __future__ import annotations

import re
import unicodedata

_SURROGATES = re.compile("[\ud800-\udfff]")
_ESCAPES = re.compile(r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?")
_SPECIAL_TOKENS = re.compile(
    r"<\|im_start\|>\w*|<\|start_header_id\|>\w*<\|end_header_id\|>|<start_of_turn>\w*|<end_of_turn>"
    r"|<\|[^|<>\n]{1,40}\|>|</?s>|<[be]os>"
)
"""With the name of the role that follows them."""
_REORDERING = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def without_surrogates(text: str) -> str:
    """Lone surrogates, which no UTF-8 file can hold, as U+FFFD."""
    return _SURROGATES.sub("\ufffd", text)


def printable(text: str) -> str:
    """`text` without what could steer a terminal: escape sequences, control characters and those that reorder a line go,
    tabs become spaces, newlines stay, lone surrogates become U+FFFD."""
    text = _ESCAPES.sub("", without_surrogates(text)).replace("\r\n", "\n").replace("\t", " ").replace("\u2028", "\n")
    return "".join(char for char in text if char == "\n" or _is_harmless(char))


def _is_harmless(char: str) -> bool:
    return unicodedata.category(char) != "Cc" and char not in _REORDERING


def one_line(text: str) -> str:
    """`printable` on one line, without special tokens such as <|im_start|>user, line ends shown as ⏎."""
    lines = (" ".join(line.split()) for line in printable(_SPECIAL_TOKENS.sub("", text)).split("\n"))
    return " ⏎ ".join(line for line in lines if line)
