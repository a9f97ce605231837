"""How an error is shown, and the exit code it ends with."""

from __future__ import annotations

import sys
import traceback

from pggrpo_cli.errors import PggrpoError, StoppedEarly, UserCodeError


def report(error: Exception) -> int:
    """One paragraph on stderr for our own errors, a full traceback for a bug. Returns the exit code."""
    if not isinstance(error, PggrpoError):
        traceback.print_exception(error)
        return 1
    if isinstance(error, UserCodeError) and error.__cause__ is not None:
        traceback.print_exception(error.__cause__)
    prefix = "" if isinstance(error, StoppedEarly) else "error: "
    # A file's text may stand in the message: what stderr cannot encode must not become a second error.
    text = f"{prefix}{error}\n".encode(sys.stderr.encoding or "utf-8", "backslashreplace")
    print(text.decode(sys.stderr.encoding or "utf-8"), end="", file=sys.stderr, flush=True)
    return error.exit_code
