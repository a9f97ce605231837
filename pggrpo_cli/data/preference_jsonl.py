"""data=preference_jsonl: chosen and rejected completions in a JSON-lines file, for sampler=offline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pggrpo_cli.ranges import Range
from pggrpo_cli.records import divided, read_jsonl
from pggrpo_cli.rows import rows_from_records
from pggrpo_cli.types import Dataset, Row


@dataclass(frozen=True, kw_only=True)
class PreferenceJsonl:
    """{"prompt", "chosen", "rejected"} or {"chosen", "rejected"}, plain or conversational; see rows.py.

    What is held out are whole prompts: the pairs of one prompt never stand on both sides. For its evaluation a held-out
    prompt counts once.
    """

    path: str
    eval_path: str | None
    eval_size: Annotated[int, Range(ge=0)]
    columns: dict[str, str]
    as_chat: bool

    def load(self, seed: int) -> Dataset:
        def rows(path: str, key: str) -> list[Row]:
            records = read_jsonl(path, key)
            return rows_from_records(records, self.columns, as_chat=self.as_chat, need_preference=True)

        if self.eval_path is not None:
            evaluation = rows(self.eval_path, "data.eval_path")
            return divided(rows(self.path, "data.path"), evaluation, self.eval_size, seed, "data.path")
        by_prompt: dict[str, list[Row]] = {}
        for row in rows(self.path, "data.path"):
            by_prompt.setdefault(str(row.prompt), []).append(row)
        firsts = [members[0] for members in by_prompt.values()]
        parts = divided(firsts, None, self.eval_size, seed, "data.path")
        train = [row for first in parts.train for row in by_prompt[str(first.prompt)]]
        return Dataset(train=train, evaluation=parts.evaluation)
