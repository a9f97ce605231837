"""Rows that are read when their turn comes: of a data set only places and digests of prompts are kept, some 40 bytes a row."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Protocol, overload, runtime_checkable

import numpy as np

from pggrpo_cli.filters import Sieve
from pggrpo_cli.types import Row

MakeRow = Callable[[str, Mapping[str, Any]], Row]
"""(source, record) → row, checked."""


@runtime_checkable
class Source(Protocol):
    """Where rows are read from."""

    def __iter__(self) -> Iterator[Row]:
        """All of them, checked, from the first to the last."""
        ...

    def row(self, place: int) -> Row:
        """One of them by its place, once all were read."""
        ...

    def digest(self) -> bytes:
        """Of all that was read."""
        ...


class LazyRows(Sequence[Row]):
    """Rows of a source by their places in it; a slice is lazy too."""

    def __init__(self, source: Source, places: np.ndarray, prompt_keys: np.ndarray) -> None:
        """places int64 [N]; prompt_keys uint64 [N]: equal where the prompts are."""
        self._source, self._places, self.prompt_keys = source, places, prompt_keys

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> LazyRows: ...
    def __getitem__(self, index: int | slice) -> Row | LazyRows:
        if isinstance(index, slice):
            return self.at(np.arange(len(self))[index])
        return self._source.row(int(self._places[index]))

    def at(self, indices: np.ndarray) -> LazyRows:
        return LazyRows(self._source, self._places[indices], self.prompt_keys[indices])

    def digest(self) -> str:
        """Of the source's content and of which rows of it these are."""
        return blake2b(self._source.digest() + self._places.tobytes(), digest_size=8).hexdigest()


def lazily(source: Source, sieve: Sieve | None) -> LazyRows:
    """Reads and checks all rows once, and keeps the places of those that stay. Raises DataError like an eager read."""
    places, keys = array("q"), array("Q")
    for place, row in enumerate(source) if sieve is None else sieve.kept(source):
        places.append(place)
        keys.append(prompt_key(row))
    return LazyRows(source, np.array(places, np.int64), np.array(keys, np.uint64))


def prompt_keys(rows: Sequence[Row]) -> np.ndarray:
    """uint64 [N]: equal where the prompts are."""
    return rows.prompt_keys if isinstance(rows, LazyRows) else np.array([prompt_key(row) for row in rows], np.uint64)


def prompt_key(row: Row) -> int:
    digest = blake2b(str(row.prompt).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def taken(rows: Sequence[Row], indices: np.ndarray) -> Sequence[Row]:
    return rows.at(indices) if isinstance(rows, LazyRows) else [rows[index] for index in indices]


class TableRows:
    """A table of the datasets library, which maps its file into memory."""

    def __init__(self, name: str, table: Any, make: MakeRow) -> None:
        self._name, self._table, self._make = name, table, make
        self._hash = blake2b(digest_size=16)

    def __iter__(self) -> Iterator[Row]:
        for place, record in enumerate(self._table):
            self._hash.update(repr(record).encode("utf-8", "surrogatepass"))
            yield self._make(f"{self._name}:{place + 1}", record)

    def row(self, place: int) -> Row:
        return self._make(f"{self._name}:{place + 1}", self._table[place])

    def digest(self) -> bytes:
        return self._hash.digest()


def selected(rows: Iterable[Row], sieve: Sieve | None) -> list[Row]:
    """Those that stay, in memory."""
    return list(rows) if sieve is None else [row for _, row in sieve.kept(rows)]
