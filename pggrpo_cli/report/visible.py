"""Text of models, data sets and configurations as a page may show it: nothing invisible, nothing that reorders a line."""

from __future__ import annotations

import unicodedata

_KEPT = frozenset("\n\t\u200c\u200d\u00ad")
"""Line ends and tabs; joiners that scripts and emoji need; soft hyphens."""
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})


def visible(text: str) -> str:
    """Control characters as their pictures (␛), all else that cannot be seen by its number ([U+202E]), lone halves of
    surrogate pairs too; every line end is a newline."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(char) for char in text.replace("\r\n", "\n"))


def _shown(char: str) -> str:
    if char in _KEPT or unicodedata.category(char) not in _HIDDEN:
        return char
    code = ord(char)
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else f"[U+{code:04X}]"


def shortened(text: str, at_most: int) -> str:
    """The beginning and the end of a long text, and between them how much is left out."""
    if len(text) <= at_most:
        return text
    tail = at_most // 3
    return f"{text[: at_most - tail]}\n[… {len(text) - at_most:,} characters …]\n{text[len(text) - tail :]}"
