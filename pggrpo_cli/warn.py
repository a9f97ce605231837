"""One line on stderr for what the user should know and the run survives."""

from __future__ import annotations

import contextlib
import sys

from pggrpo_cli.printable import printable


def warn(text: str) -> None:
    """Never raises: a warning that cannot be printed must not end the run it is about."""
    with contextlib.suppress(OSError, ValueError):
        print(f"warning: {printable(text)}", file=sys.stderr, flush=True)
