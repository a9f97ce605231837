"""Did you mean …?"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(word: str, options: Iterable[str]) -> list[str]:
    """Up to two options like `word`, the most alike first."""
    return get_close_matches(word, list(options), n=2, cutoff=0.7)


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """ " Did you mean a or b?", or nothing."""
    found = nearest(word, options)
    return f" Did you mean {' or '.join(found)}?" if found else ""
