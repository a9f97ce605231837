"""A person at a terminal: a prompt, an answer, the next prompt."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable

from pggrpo_cli.errors import PggrpoError
from pggrpo_cli.failure import report
from pggrpo_cli.generating.aside import Aside

MARK = "> "


def prompt_loop(answer: Callable[[str], None], aside: Aside) -> None:
    """Until Ctrl-D. Ctrl-C stops an answer, whose text stays; what is wrong with one prompt ends nothing."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - gives input() its line editing and history
    aside.say("A prompt a line, each by itself. Ctrl-C stops an answer, Ctrl-D ends.", dim=True)
    while True:
        try:
            text = _read()
        except EOFError:
            aside.say("")
            return
        except KeyboardInterrupt:
            aside.say("\nCtrl-D ends.", dim=True)
            continue
        except UnicodeDecodeError:
            aside.say("That is not UTF-8.")
            continue
        if not text.strip():
            continue
        try:
            answer(text)
        except KeyboardInterrupt:
            aside.say("stopped", dim=True)
        except PggrpoError as error:
            report(error)


def _read() -> str:
    if sys.stdout.isatty():
        return input(MARK)
    print(MARK, end="", file=sys.stderr, flush=True)  # input() would put it among the answers
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.removesuffix("\n")
