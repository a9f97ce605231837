"""Records of JSON-lines files, with errors that name file and line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pggrpo_cli.errors import ConfigError, DataError
from pggrpo_cli.shuffling import split
from pggrpo_cli.types import Dataset, Row


def read_jsonl(path: str, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(file:line, record) for each non-empty line. A BOM and CRLF are tolerated. Raises ConfigError, DataError.

    Refused: a truncated line, bytes that are not UTF-8, NaN and Infinity, halves of surrogate pairs.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "does not exist"
        raise ConfigError(f"`{key}`: {path} {what}; give a JSON-lines file (one JSON object a line).")
    try:
        lines = file.open("rb")
    except OSError as error:
        raise ConfigError(f"`{key}`: cannot read {path}: {error.strerror}.") from error
    with lines:
        for number, raw in enumerate(lines, 1):
            source = f"{path}:{number}"
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{source}: not UTF-8 (byte {error.start + 1} of the line); convert the file."
                ) from error
            if line:
                yield source, _record(source, line)


def _record(source: str, line: str) -> dict[str, Any]:
    try:
        record = json.loads(line, parse_constant=_refuse_constant)
        if "\\u" in line:
            # JSON can spell half a surrogate pair, which is no text: no tokenizer takes it, no file can hold it.
            json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{source}: not valid text: half a surrogate pair ({error.object[error.start]!r}).") from error
    except RecursionError as error:
        raise DataError(f"{source}: not valid JSON: nested too deeply") from error
    except ValueError as error:
        raise DataError(f"{source}: not valid JSON: {error}") from error
    if not isinstance(record, dict):
        raise DataError(f"{source}: a JSON object is needed, not {type(record).__name__}.")
    return record


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON; use null")


def divided(
    rows: Sequence[Row], held_out: Sequence[Row] | None, eval_size: int, seed: int, held_out_key: str
) -> Dataset:
    """Rows with a held-out part: one of its own, which `held_out_key` names, or `eval_size` different prompts.

    Prompts are held out whole: rows that share one never stand on both sides, and a held-out one counts once.
    Raises DataError if a part is empty, ConfigError if none would be left to train on.
    """
    if not rows:
        raise DataError("`data.path`: holds no rows.")
    if held_out is not None:
        if not held_out:
            raise DataError(f"`{held_out_key}`: holds no rows; use null to hold out data.eval_size rows instead.")
        return Dataset(train=list(rows), evaluation=list(held_out))
    firsts: dict[str, Row] = {}
    for row in rows:
        firsts.setdefault(str(row.prompt), row)
    if eval_size >= len(firsts):
        raise ConfigError(
            f"`data.eval_size`: {eval_size} of {len(firsts)} different prompts held out leaves none to train on; lower "
            "it (0: no evaluation)."
        )
    _, evaluation = split(list(firsts.values()), eval_size, seed)
    prompts = {str(row.prompt) for row in evaluation}
    return Dataset(train=[row for row in rows if str(row.prompt) not in prompts], evaluation=evaluation)
