"""pggrpo doctor: will it run here? Looks at the machine, the packages, and the run that you describe."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from pggrpo_cli.options import Options

if TYPE_CHECKING:
    from pggrpo_cli.findings import Finding

HELP = """\
usage: pggrpo doctor [--json] [--config-dir DIR] [key=value …]

Looks at Python, packages, processors, memory, disk and sandbox; then at the run that `pggrpo train key=value …` would
be: its configuration, the model's tokenizer, context and template (no weights are read), the data's columns and
lengths, and one call of each reward. A line each:

  ✓  as it should be     !  works, but look at it     ✗  would not run; the line says what to do

Exit code 2 if there is a ✗. --json prints the same for programs.

examples:
  pggrpo doctor
  pggrpo doctor model=hf model.path=./my-model data=jsonl data.path=questions.jsonl reward=math_verify
"""
MARKS = {"ok": "✓", "warning": "!", "trouble": "✗"}
PLAIN_MARKS = {"ok": "+", "warning": "!", "trouble": "x"}
"""For terminals that know ASCII alone."""
COLOURS = {"ok": "32", "warning": "33", "trouble": "31"}


def main(arguments: list[str]) -> int:
    if set(arguments) & {"-h", "--help"}:
        print(HELP, end="")
        return 0
    options = Options("doctor")
    options.add_argument("--json", action="store_true")
    options.add_argument("--config-dir", "-cd")
    options.add_argument("overrides", nargs="*")
    given = options.parse_intermixed_args(arguments)
    found: list[Finding] = []
    if given.json:
        with contextlib.redirect_stdout(sys.stderr):  # what a user's own code prints is no JSON
            found += _findings(given.overrides, given.config_dir)
        healthy = all(one.status != "trouble" for one in found)
        print(json.dumps({"ok": healthy, "findings": [asdict(one) for one in found]}, indent=1, ensure_ascii=False))
        return 0 if healthy else 2
    for one in _findings(given.overrides, given.config_dir):
        found.append(one)
        _print(one)
    troubles = sum(one.status == "trouble" for one in found)
    warnings = sum(one.status == "warning" for one in found)
    words = f"{troubles} in trouble, {warnings} to look at" if troubles or warnings else "all is well"
    print(f"\n{words}")
    return 2 if troubles else 0


def _findings(overrides: list[str], config_dir: str | None) -> Iterator[Finding]:
    from pggrpo_cli.machine_findings import machine_findings

    yield from machine_findings()
    from pggrpo_cli.run_findings import run_findings

    yield from run_findings(overrides, config_dir)


def _print(finding: Finding) -> None:
    """On a terminal in its width and in colour; elsewhere a line each, however long."""
    encoding = sys.stdout.encoding or "utf-8"
    mark = (MARKS if _can_show(MARKS[finding.status], encoding) else PLAIN_MARKS)[finding.status]
    terminal = sys.stdout.isatty()
    text = _one_line(f"{finding.name}: {finding.says}")
    lines = [text] + ([f"→ {_one_line(finding.advice)}"] if finding.advice else [])
    if terminal:
        width = max(20, shutil.get_terminal_size().columns - 1)
        lines = [part for line in lines for part in _wrapped(line, width - 2)]
    if terminal and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb":
        mark = f"\x1b[{COLOURS[finding.status]}m{mark}\x1b[0m"
    shown = f"{mark} " + "\n  ".join(lines)
    print(shown.encode(encoding, "replace").decode(encoding), flush=True)


def _wrapped(line: str, width: int) -> list[str]:
    return textwrap.wrap(line, width, subsequent_indent="  ", break_on_hyphens=False)


def _one_line(text: str) -> str:
    from pggrpo_cli.printable import printable

    return " ".join(printable(text).split())


def _can_show(mark: str, encoding: str) -> bool:
    try:
        mark.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True
