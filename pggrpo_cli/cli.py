"""argv → command. Imports neither torch nor Hydra: `pggrpo --help` answers at once."""

from __future__ import annotations

import ast
import os
import sys
from importlib import import_module
from pathlib import Path

from pggrpo_cli import __version__
from pggrpo_cli.errors import PggrpoError, UsageError
from pggrpo_cli.failure import report
from pggrpo_cli.suggestions import did_you_mean

HEADER = """\
pggrpo {version}: post-train language models with GRPO, DPO and PG-GRPO from a shell

usage: pggrpo COMMAND [key=value …]

commands:
"""
FOOTER = """
examples:
  pggrpo train                                     the default run: a 135M model, on a CPU, in minutes
  pggrpo train loss=grpo trainer.max_steps=50      change anything in the configuration
  pggrpo train -m loss=grpo,pg_grpo seed=1,2       a sweep: every combination, each a process
  pggrpo train --cfg job                           show the configuration instead of running it
  pggrpo train --help                              the groups and their options
  pggrpo resume outputs/2026-11-23/…               go on where a run stopped
  pggrpo report outputs/2026-11-23/…               one page of what happened in it
  pggrpo generate outputs/2026-11-23/… "3 + 4 ="   what its model says now

exit codes: 0 done · 1 a bug · 2 usage, configuration, data or your own code · 3 diverged · 4 no usable checkpoint
            5 the run directory is in use · 75 stopped early, saved, resumable · 130, 143 ended at once by a signal
"""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command that `arguments` (sys.argv without the program) name; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    _open_closed_streams()
    try:
        code = _dispatch(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Whoever read us has gone (`| head`); the interpreter's last flush must not fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        return 130
    except PggrpoError as error:
        return report(error)


def _open_closed_streams() -> None:
    """A stream that whoever started us has closed (`2>&-`) leads nowhere. Python has None in its place, on which the first
    word fails or goes to stdout instead; and the next file opened would get its number, with all that C code says there."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode, encoding="utf-8")  # noqa: SIM115 - stays open, at the lowest number free
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)


def commands() -> dict[str, str]:
    """Every command with its line of help: the files of command/ and the first line of their docstrings, unimported."""
    found = {}
    for file in sorted((Path(__file__).parent / "command").glob("[!_]*.py")):
        first = (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").partition("\n")[0]
        found[file.stem] = first.partition(": ")[2] or first
    return found


def _dispatch(arguments: list[str]) -> int:
    first = arguments[0] if arguments else "--help"
    if first in ("-h", "--help", "help"):
        lines = "".join(f"  {name:12} {words}\n" for name, words in commands().items())
        print(HEADER.format(version=__version__) + lines + FOOTER, end="")
        return 0
    if first in ("-V", "--version"):
        print(f"pggrpo {__version__}")
        return 0
    if first == "__complete":  # what the scripts of `pggrpo completion` ask
        return int(import_module("pggrpo_cli.completions").main(arguments[1:]))
    known = commands()
    if first not in known:
        raise UsageError(
            f"`{first}`: there is no such command.{did_you_mean(first, known)} There are: {', '.join(known)}; "
            "pggrpo --help explains them."
        )
    return int(import_module(f"pggrpo_cli.command.{first}").main(arguments[1:]) or 0)
