"""pggrpo data: what a run would see of its data: pggrpo data preview [key=value …]."""

from __future__ import annotations

from pggrpo_cli.errors import UsageError
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
OPTIONS = ("--rows", "--json", "--config-dir", "--help")
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
    rows, as_json, config_dir, overrides = _parsed(words)
    from pggrpo_cli.check import checked
    from pggrpo_cli.config import as_dict
    from pggrpo_cli.data_files import check_files
    from pggrpo_cli.hydra_start import compose

    config = checked(compose("train", overrides, config_dir))
    check_files(as_dict(config))
    from pggrpo_cli import preview_display
    from pggrpo_cli.data_preview import collect

    preview = collect(config, rows)
    if as_json:
        print(preview_display.as_json(preview))
    else:
        preview_display.show(preview)
    return 0


def _parsed(words: list[str]) -> tuple[int, bool, str | None, list[str]]:
    """(rows, as JSON, folder of groups, overrides). Raises UsageError."""
    rows, as_json, config_dir, overrides = ROWS, False, None, []
    rest = iter(words)
    for word in rest:
        option, equals, value = word.partition("=")
        if option == "--json" and not equals:
            as_json = True
        elif option in ("--rows", "--config-dir", "-cd"):
            value = value if equals else next(rest, "")
            if option == "--rows":
                if not value.isdecimal():
                    raise UsageError(f"--rows: {value!r} is not a whole number ≥ 0; for example --rows 5.")
                rows = int(value)
            elif not value:
                raise UsageError(f"{option}: give the folder that holds your groups.")
            else:
                config_dir = value
        elif word.startswith("-"):
            meant = did_you_mean(option, OPTIONS)
            raise UsageError(f"`{word}`: pggrpo data preview has no such option.{meant} See pggrpo data --help.")
        else:
            overrides.append(word)
    return rows, as_json, config_dir, overrides
