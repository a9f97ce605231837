"""pggrpo data: what a run would see of its data: pggrpo data preview [key=value …]."""

from __future__ import annotations

import argparse

from pggrpo_cli.errors import UsageError
from pggrpo_cli.options import Options
from pggrpo_cli.suggestions import did_you_mean

HELP = """\
usage: pggrpo data preview [--rows N] [--json] [--config-dir DIR] [key=value …]

Shows the data of `pggrpo train` with the same keys, as the model would see it: how many rows train and are held out, what
filters leave out and why, the columns, the lengths in tokens against the model's context, and the first rows rendered and
tokenised. Reads the data set and the tokenizer; loads no weights and makes no run directory.

  --rows N            rows that are shown; 3 unless given
  --json              the same as one JSON object
  -cd, --config-dir   a folder with groups of your own, as for pggrpo train

examples:
  pggrpo data preview
  pggrpo data preview data=jsonl data.path=questions.jsonl data.as_chat=true
  pggrpo data preview data=hf data.path=train.parquet data.where.pass_rate.min=0.1 data.where.pass_rate.max=0.9
"""
ROWS = 3


def main(arguments: list[str]) -> int:
    if not arguments or any(word in ("-h", "--help") for word in arguments):
        print(HELP, end="")
        return 0 if arguments else 2
    command, *words = arguments
    if command != "preview":
        raise UsageError(
            f"`pggrpo data {command}`: there is no such command.{did_you_mean(command, ['preview'])} There is: preview."
        )
    options = _parsed(words)
    from pggrpo_cli.check import checked
    from pggrpo_cli.composing import compose
    from pggrpo_cli.config import as_dict
    from pggrpo_cli.data_files import check_rows

    config = checked(compose("train", options.overrides, options.config_dir))
    check_rows(as_dict(config))
    from pggrpo_cli import preview_display
    from pggrpo_cli.data_preview import collect

    preview = collect(config, options.rows)
    if options.json:
        print(preview_display.as_json(preview))
    else:
        preview_display.show(preview)
    return 0


def _parsed(words: list[str]) -> argparse.Namespace:
    """rows, json, config_dir, overrides. Raises UsageError."""
    parser = Options("data preview")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--rows", default=str(ROWS))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("-cd", "--config-dir")
    options = parser.parse_intermixed_args(words)
    if not options.rows.isdecimal():
        raise UsageError(f"--rows: {options.rows!r} is not a whole number ≥ 0; for example --rows 5.")
    options.rows = int(options.rows)
    if options.config_dir == "":
        raise UsageError("--config-dir: give the folder that holds your groups.")
    return options
