"""What a command says beside its output: on stderr, dimmed on a terminal, with a line for the time until there is more to say."""

from __future__ import annotations

import os
import sys

from pggrpo_cli.printable import printable


class Aside:
    def __init__(self) -> None:
        self._standing = False

    def say(self, words: str, *, dim: bool = False) -> None:
        self.clear()
        words = printable(words)
        if dim and sys.stderr.isatty() and not os.environ.get("NO_COLOR"):
            words = f"\x1b[2m{words}\x1b[0m"
        encoding = sys.stderr.encoding or "utf-8"
        print(words.encode(encoding, "replace").decode(encoding), file=sys.stderr, flush=True)

    def meanwhile(self, words: str) -> None:
        """Stands there until something else is said; on a terminal only."""
        if sys.stderr.isatty():
            self.clear()
            print(words, end="", file=sys.stderr, flush=True)
            self._standing = True

    def clear(self) -> None:
        if self._standing:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._standing = False
