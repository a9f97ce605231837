"""pggrpo report: one HTML page, or a terminal's worth, on runs: pggrpo report RUN… [-o report.html] [--terminal]."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NoReturn

from pggrpo_cli.errors import UsageError

HELP = """\
usage: pggrpo report RUN… [-o FILE] [--terminal]

What happened in a run: its rewards with intervals, every other metric, completions over time, the configuration and how it
differs from the defaults, the environment; as one HTML file that needs nothing else. Several runs, or the folder of a sweep,
are compared. Works on runs that are finished, going on, stopped or killed; nothing is written into them.

  -o, --output FILE   where the page goes (default: report.html); - prints it
  --terminal          the essentials here, instead of a page

examples:
  pggrpo report outputs/2026-11-23/12-00-00-train-1a2b3c
  pggrpo report outputs/sweeps/2026-11-23/12-00-00-train-1a2b3c -o sweep.html
"""


def main(arguments: list[str]) -> int:
    if not arguments or any(word in ("-h", "--help") for word in arguments):
        print(HELP, end="")
        return 0 if arguments else 2
    options = _parse(arguments)
    from pggrpo_cli.report.places import find_runs, names
    from pggrpo_cli.report.run import read_run

    paths = find_runs(options.runs, "report")
    found = [read_run(path, name) for path, name in zip(paths, names(paths), strict=True)]
    if options.terminal:
        from pggrpo_cli.report.terminal import show

        show(found)
        return 0
    from pggrpo_cli.report.page import render

    _write(render(found), options.output)
    return 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="pggrpo report", add_help=False, allow_abbrev=False)
    parser.add_argument("runs", nargs="*")
    parser.add_argument("-o", "--output")
    parser.add_argument("--terminal", action="store_true")

    def refuse(message: str) -> NoReturn:
        raise UsageError(f"pggrpo report: {message}. See pggrpo report --help.")

    parser.error = refuse  # type: ignore[method-assign]
    options = parser.parse_intermixed_args(arguments)
    if not options.runs:
        raise UsageError("pggrpo report: no run is given. Write pggrpo report RUN…, or the folder of a sweep.")
    if options.terminal and options.output is not None:
        raise UsageError("`--terminal`: goes to the terminal, so -o has nothing to write. Leave one of them out.")
    options.output = options.output or "report.html"
    return options


def _write(page: str, target: str) -> None:
    if target == "-":
        sys.stdout.flush()
        binary = getattr(sys.stdout, "buffer", None)
        if binary is None:
            sys.stdout.write(page)
        else:  # UTF-8, as the page says of itself, whatever the terminal speaks
            binary.write(page.encode())
        return
    from pggrpo_cli.whole_file import write_whole

    file = Path(target).expanduser()
    if file.is_dir():
        raise UsageError(f"`-o`: {target} is a folder. Give a file, such as {file / 'report.html'}.")
    try:
        write_whole(file, page)
    except OSError as error:
        raise UsageError(f"`-o`: {target} cannot be written: {error.strerror}. Give another file.") from error
    print(f"{target}: {len(page.encode()) / 1000:.0f} kB")
