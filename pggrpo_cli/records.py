"""Records of JSON-lines files, with errors that name file and line; rows divided into those to train on and held out."""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Any, BinaryIO

import numpy as np

from pggrpo_cli.data_files import existing_file
from pggrpo_cli.errors import ConfigError, DataError
from pggrpo_cli.filters import Sieve
from pggrpo_cli.lazy_rows import MakeRow, prompt_keys, taken
from pggrpo_cli.shuffling import split
from pggrpo_cli.types import Dataset, Row


def read_jsonl(path: str, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(file:line, record) for each non-empty line. A BOM and CRLF are tolerated. Raises ConfigError, DataError.

    Refused: a truncated line, bytes that are not UTF-8, NaN and Infinity, halves of surrogate pairs.
    """
    with _opened(path, key) as lines:
        for number, raw in enumerate(lines, 1):
            source = f"{path}:{number}"
            line = _decoded(source, raw, first=number == 1)
            if line:
                yield source, _record(source, line)


class LineRows:
    """Rows of a JSON-lines file, read when they are asked for; see lazy_rows.Source.

    The file stays open: another one that is moved to its place changes nothing.
    """

    def __init__(self, path: str, key: str, make: MakeRow) -> None:
        self._path, self._make = path, make
        self._file = _opened(path, key)
        self._starts, self._lengths, self._numbers = array("q"), array("q"), array("q")
        self._hash = blake2b(digest_size=16)
        self._stamp = self._size_and_time()

    def __iter__(self) -> Iterator[Row]:
        start = 0
        for number, raw in enumerate(self._file, 1):
            self._hash.update(raw)
            source = f"{self._path}:{number}"
            line = _decoded(source, raw, first=number == 1)
            if line:
                self._starts.append(start)
                self._lengths.append(len(raw))
                self._numbers.append(number)
                yield self._make(source, _record(source, line))
            start += len(raw)
        self._refuse_change()

    def row(self, place: int) -> Row:
        self._refuse_change()
        number = self._numbers[place]
        source = f"{self._path}:{number}"
        raw = os.pread(self._file.fileno(), self._lengths[place], self._starts[place])
        return self._make(source, _record(source, _decoded(source, raw, first=number == 1)))

    def digest(self) -> bytes:
        return self._hash.digest()

    def _size_and_time(self) -> tuple[int, int]:
        stat = os.fstat(self._file.fileno())
        return stat.st_size, stat.st_mtime_ns

    def _refuse_change(self) -> None:
        if self._size_and_time() != self._stamp:
            raise DataError(
                f"{self._path}: has been written to since this run began to read it. Put back what it held, or start a "
                "new run; data.streaming=false keeps all rows in memory."
            )


def _opened(path: str, key: str) -> BinaryIO:
    try:
        return existing_file(path, key).open("rb")
    except OSError as error:
        raise ConfigError(f"`{key}`: cannot read {path}: {error.strerror}.") from error


def _decoded(source: str, raw: bytes, *, first: bool) -> str:
    try:
        return raw.decode("utf-8-sig" if first else "utf-8").strip()
    except UnicodeDecodeError as error:
        raise DataError(f"{source}: not UTF-8 (byte {error.start + 1} of the line); convert the file.") from error


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
        place = f"{error.msg} (column {error.colno})" if isinstance(error, json.JSONDecodeError) else str(error)
        is_table = source.rpartition(":")[0].lower().endswith((".csv", ".tsv", ".parquet", ".arrow"))
        hint = ". A table in csv, parquet or arrow is read by data=hf" if is_table else ""
        raise DataError(f"{source}: not valid JSON: {place}{hint}.") from error
    if not isinstance(record, dict):
        raise DataError(
            f"{source}: a JSON object is needed, not {type(record).__name__}. Each line holds one, such as "
            '{"prompt": "…", "answer": "…"}.'
        )
    return record


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON; use null")


def divided(
    rows: Sequence[Row],
    held_out: Sequence[Row] | None,
    eval_size: int,
    seed: int,
    held_out_key: str,
    sieve: Sieve | None = None,
) -> Dataset:
    """Rows with a held-out part: one of its own, which `held_out_key` names, or `eval_size` different prompts.

    Prompts are held out whole: rows that share one never stand on both sides, and a held-out one counts once. `rows` are
    those that the sieve kept; its limit holds for what is left to train on.
    Raises DataError if a part is empty, ConfigError if none would be left to train on.
    """
    if not rows:
        raise DataError("`data.path`: holds no rows.")
    if held_out is not None:
        if not held_out:
            raise DataError(f"`{held_out_key}`: holds no rows; use null to hold out data.eval_size rows instead.")
        return Dataset(train=limited(rows, sieve), evaluation=held_out)
    keys = prompt_keys(rows)
    firsts = np.sort(np.unique(keys, return_index=True)[1])
    if eval_size >= len(firsts):
        raise ConfigError(
            f"`data.eval_size`: {eval_size} of {len(firsts)} different prompts held out leaves none to train on; lower "
            "it (0: no evaluation)."
        )
    _, chosen = split(firsts.tolist(), eval_size, seed)
    evaluation = np.array(chosen, np.int64)
    train = np.flatnonzero(~np.isin(keys, keys[evaluation]))
    return Dataset(train=limited(taken(rows, train), sieve), evaluation=taken(rows, evaluation))


def limited(rows: Sequence[Row], sieve: Sieve | None) -> Sequence[Row]:
    """The first of them, as many as data.limit allows."""
    return rows if sieve is None else rows[: sieve.limited(len(rows))]
