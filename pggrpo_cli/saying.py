"""A word while nothing can be seen yet."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def saying(words: str) -> Iterator[None]:
    """Shows `words` on a terminal while within: the imports take seconds, and a silent shell looks dead."""
    shown = sys.stderr.isatty()
    if shown:
        print(words, end="\r", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        if shown:
            print(" " * len(words), end="\r", file=sys.stderr, flush=True)
