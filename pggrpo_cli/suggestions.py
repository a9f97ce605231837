"""Did you mean …?"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(word: str, options: Iterable[str]) -> list[str]:
    """Up to two options like `word`, the most alike first. A dotted key is also compared by its last part."""
    known = list(options)
    found = get_close_matches(word, known, n=2, cutoff=0.7)
    if found or "." not in word:
        return found
    lasts = {option.rpartition(".")[2]: option for option in reversed(known)}
    return [lasts[last] for last in get_close_matches(word.rpartition(".")[2], lasts, n=1, cutoff=0.8)]


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """" Did you mean a or b?", or nothing."""
    found = nearest(word, options)
    return f" Did you mean {' or '.join(found)}?" if found else ""
