"""Records of JSON-lines files, with errors that name file and line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pggrpo_cli.errors import ConfigError, DataError
from pggrpo_cli.order import split
from pggrpo_cli.types import Dataset, Row


def read_jsonl(path: str, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(file:line, record) for each non-empty line. A BOM and CRLF are tolerated. Raises ConfigError, DataError."""
    file = Path(path).expanduser()
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "does not exist"
        raise ConfigError(f"`{key}`: {path} {what}; give a JSON-lines file (one JSON object a line).")
    with file.open("rb") as lines:
        for number, raw in enumerate(lines, 1):
            source = f"{path}:{number}"
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{source}: not UTF-8 (byte {error.start + 1} of the line); convert the file."
                ) from error
            if not line:
                continue
            try:
                record = json.loads(line, parse_constant=_refuse_constant)
            except ValueError as error:
                raise DataError(f"{source}: not valid JSON: {error}") from error
            if not isinstance(record, dict):
                raise DataError(f"{source}: a JSON object is needed, not {type(record).__name__}.")
            yield source, record


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON; use null")


def divided(rows: Sequence[Row], evaluation_rows: Sequence[Row] | None, eval_size: int, seed: int, key: str) -> Dataset:
    """Rows with a held-out part: a file of its own, or `eval_size` of them. Raises DataError if none is left."""
    if not rows:
        raise DataError(f"`{key}`: holds no rows.")
    if evaluation_rows is not None:
        return Dataset(train=list(rows), evaluation=list(evaluation_rows))
    if eval_size >= len(rows):
        raise ConfigError(
            f"`data.eval_size`: {eval_size} of {len(rows)} rows held out leaves none to train on; lower it "
            "(0: no evaluation)."
        )
    train, evaluation = split(rows, eval_size, seed)
    return Dataset(train=train, evaluation=evaluation)
