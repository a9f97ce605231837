"""How an error is shown, and the exit code it ends with."""

from __future__ import annotations

import sys
import sysconfig
import traceback
from pathlib import Path

from pggrpo_cli.errors import PggrpoError, RewardTraceback, StoppedEarly, UserCodeError

PACKAGE = Path(__file__).resolve().parent


def report(error: Exception) -> int:
    """One paragraph on stderr for our own errors, a full traceback for a bug. Returns the exit code."""
    if not isinstance(error, PggrpoError):
        traceback.print_exception(error)
        place = _users_line(error)
        if place is None:
            return 1
        print(f"error: {place}: your own code raised {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return UserCodeError.exit_code
    show_cause(error)
    prefix = "" if isinstance(error, StoppedEarly) else "error: "
    # A file's text may stand in the message: what stderr cannot encode must not become a second error.
    text = f"{prefix}{error}\n".encode(sys.stderr.encoding or "utf-8", "backslashreplace")
    print(text.decode(sys.stderr.encoding or "utf-8"), end="", file=sys.stderr, flush=True)
    return error.exit_code


def show_cause(error: PggrpoError) -> None:
    """The traceback of a user's own code on stderr, if that is what it comes from."""
    if isinstance(error, UserCodeError) and error.__cause__ is not None:
        if isinstance(error.__cause__, RewardTraceback):
            print(str(error.__cause__).rstrip(), file=sys.stderr)
        else:
            traceback.print_exception(error.__cause__)


def _users_line(error: BaseException) -> str | None:
    """file:line of the user's own code that we called and that raised; None for a bug of ours or of a library."""
    installed = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    ours, found = False, None
    for frame in traceback.extract_tb(error.__traceback__):
        file = Path(frame.filename)
        if PACKAGE in file.parents:
            ours, found = True, None
        elif ours and file.is_file() and not frame.filename.startswith(installed):
            found = found or f"{frame.filename}:{frame.lineno}"
    return found
