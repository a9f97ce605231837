"""data=jsonl: a JSON-lines file in one of TRL's formats. Needs no further library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pggrpo_cli.ranges import Range
from pggrpo_cli.records import divided, read_jsonl
from pggrpo_cli.rows import rows_from_records
from pggrpo_cli.types import Dataset, Row


@dataclass(frozen=True, kw_only=True)
class Jsonl:
    """Prompts, demonstrations or preference pairs; see rows.py. `columns`: our name → the file's column."""

    path: str
    eval_path: str | None
    eval_size: Annotated[int, Range(ge=0)]
    columns: dict[str, str]
    as_chat: bool

    def load(self, seed: int) -> Dataset:
        def rows(path: str, key: str) -> list[Row]:
            records = read_jsonl(path, key)
            return rows_from_records(records, self.columns, as_chat=self.as_chat, need_preference=False)

        evaluation = None if self.eval_path is None else rows(self.eval_path, "data.eval_path")
        return divided(rows(self.path, "data.path"), evaluation, self.eval_size, seed, "data.eval_path")
