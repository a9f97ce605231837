"""Preference files: pairs of one prompt stay on one side."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pggrpo_cli.data.preference_jsonl import PreferenceJsonl
from pggrpo_cli.errors import DataError


def data(folder: Path, rows: list[dict[str, str]], eval_size: int = 0) -> PreferenceJsonl:
    file = folder / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return PreferenceJsonl(path=str(file), eval_path=None, eval_size=eval_size, columns={}, as_chat=False)


def test_prompts_are_held_out_whole(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{i % 5}", "chosen": f"c{i}", "rejected": f"r{i}"} for i in range(15)]
    loaded = data(tmp_path, rows, eval_size=2).load(1)
    held_out = {row.prompt for row in loaded.evaluation}
    assert len(loaded.evaluation) == len(held_out) == 2
    assert len(loaded.train) == 9
    assert not held_out & {row.prompt for row in loaded.train}
    assert [c.preference for c in loaded.train[0].completions] == [1.0, 0.0]


def test_rows_without_pairs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"pairs.jsonl:1: there is no column 'chosen'"):
        data(tmp_path, [{"prompt": "p"}]).load(1)


def test_prompts_alone_can_be_held_out(tmp_path: Path) -> None:
    (tmp_path / "held_out.jsonl").write_text('{"prompt": "q", "answer": 3}\n')
    pairs = data(tmp_path, [{"prompt": "p", "chosen": "c", "rejected": "r"}])
    parts = replace(pairs, eval_path=str(tmp_path / "held_out.jsonl")).load(1)
    assert (parts.evaluation[0].prompt, parts.evaluation[0].columns) == ("q", {"answer": 3})
