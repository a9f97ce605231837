"""data=jsonl: a JSON-lines file in one of TRL's formats. Needs no further library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pggrpo_cli.filters import Sieve
from pggrpo_cli.lazy_rows import lazily, selected
from pggrpo_cli.ranges import Range
from pggrpo_cli.records import LineRows, divided, read_jsonl
from pggrpo_cli.rows import row_maker
from pggrpo_cli.types import Dataset, Row


@dataclass(frozen=True, kw_only=True)
class Jsonl:
    """Prompts, demonstrations or preference pairs; see rows.py. `columns`: our name → the file's column.

    `streaming`: the file is read and checked once; then each row is read again when its turn comes.
    """

    path: str
    eval_path: str | None
    eval_size: Annotated[int, Range(ge=0)]
    columns: dict[str, str]
    as_chat: bool
    streaming: bool

    def load(self, seed: int, sieve: Sieve | None = None) -> Dataset:
        evaluation = None if self.eval_path is None else self._rows(self.eval_path, "data.eval_path", None)
        rows = self._rows(self.path, "data.path", sieve)
        return divided(rows, evaluation, self.eval_size, seed, "data.eval_path", sieve)

    def _rows(self, path: str, key: str, sieve: Sieve | None) -> Sequence[Row]:
        make = row_maker(self.columns, as_chat=self.as_chat, need_preference=False)
        if self.streaming:
            return lazily(LineRows(path, key, make), sieve)
        return selected((make(source, record) for source, record in read_jsonl(path, key)), sieve)
