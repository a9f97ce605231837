"""data=preference_jsonl: chosen and rejected completions in a JSON-lines file, for sampler=offline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pggrpo_cli.filters import Sieve
from pggrpo_cli.lazy_rows import selected
from pggrpo_cli.ranges import Range
from pggrpo_cli.records import divided, read_jsonl
from pggrpo_cli.rows import rows_from_records
from pggrpo_cli.types import Dataset, Row


@dataclass(frozen=True, kw_only=True)
class PreferenceJsonl:
    """{"prompt", "chosen", "rejected"} or {"chosen", "rejected"}, plain or conversational; see rows.py.

    The pairs of one prompt never stand on both sides of the division; held out, a prompt counts once.
    What `eval_path` holds may be prompts alone: evaluation samples its own completions.
    """

    path: str
    eval_path: str | None
    eval_size: Annotated[int, Range(ge=0)]
    columns: dict[str, str]
    as_chat: bool

    def load(self, seed: int, sieve: Sieve | None = None) -> Dataset:
        def rows(path: str, key: str, *, need_preference: bool) -> list[Row]:
            records = read_jsonl(path, key)
            return rows_from_records(records, self.columns, as_chat=self.as_chat, need_preference=need_preference)

        pairs = selected(rows(self.path, "data.path", need_preference=True), sieve)
        held_out = None if self.eval_path is None else rows(self.eval_path, "data.eval_path", need_preference=False)
        return divided(pairs, held_out, self.eval_size, seed, "data.eval_path", sieve)
