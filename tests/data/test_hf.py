"""The datasets library: files, saved folders, and what is missing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pytest

from pggrpo_cli.data.hf import Hf
from pggrpo_cli.errors import ConfigError
from pggrpo_cli.lazy_rows import LazyRows
from pggrpo_cli.nested import plain

ROWS = [{"question": f"q{index}", "answer": str(index)} for index in range(6)]


def data(path: Path | str) -> Hf:
    return Hf(
        path=str(path),
        name=None,
        split="train",
        eval_split=None,
        eval_size=2,
        columns={"prompt": "question"},
        as_chat=True,
        streaming=False,
    )


def test_parquet_files_and_saved_folders(tmp_path: Path) -> None:
    table = datasets.Dataset.from_list(ROWS)
    table.to_parquet(tmp_path / "t.parquet")
    table.save_to_disk(tmp_path / "saved")
    datasets.DatasetDict({"train": table}).save_to_disk(tmp_path / "dict")
    loads = [data(tmp_path / name).load(1) for name in ("t.parquet", "saved", "dict")]
    for loaded in loads:
        assert (len(loaded.train), len(loaded.evaluation)) == (4, 2)
        assert loaded.train[0].prompt == [{"role": "user", "content": "q" + loaded.train[0].columns["answer"]}]
        assert [row.columns for row in loaded.train] == [row.columns for row in loads[0].train]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"`data.path`: ./none.parquet does not exist"):
        data("./none.parquet").load(1)
    datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)}).save_to_disk(tmp_path / "dict")
    with pytest.raises(ConfigError, match=r"cannot read .*split 'test'"):
        replace(data(tmp_path / "dict"), split="test").load(1)
    (tmp_path / "t.xml").write_text("<x/>")
    with pytest.raises(ConfigError, match="allowed are"):
        data(tmp_path / "t.xml").load(1)


def test_a_held_out_split_is_never_the_one_trained_on(tmp_path: Path) -> None:
    table = datasets.Dataset.from_list(ROWS)
    table.to_parquet(tmp_path / "t.parquet")
    table.save_to_disk(tmp_path / "saved")
    for name in ("t.parquet", "saved"):
        with pytest.raises(ConfigError, match=r"cannot read .*split 'test'"):
            replace(data(tmp_path / name), eval_split="test").load(1)
    sliced = replace(data(tmp_path / "t.parquet"), split="train[:4]", eval_split="train[4:]").load(1)
    assert [row.columns["answer"] for row in sliced.train] == ["0", "1", "2", "3"]
    assert [row.columns["answer"] for row in sliced.evaluation] == ["4", "5"]


def test_streaming_reads_the_same_rows_from_the_mapped_table(tmp_path: Path) -> None:
    datasets.Dataset.from_list(ROWS).to_parquet(tmp_path / "t.parquet")
    eager = data(tmp_path / "t.parquet").load(1)
    streamed = replace(data(tmp_path / "t.parquet"), streaming=True).load(1)
    assert isinstance(streamed.train, LazyRows)
    assert list(streamed.train) == list(eager.train)
    assert list(streamed.evaluation) == list(eager.evaluation)


def test_a_table_with_a_format_of_its_own_gives_values_of_python(tmp_path: Path) -> None:
    table = datasets.Dataset.from_list(
        [{"prompt": "p", "scores": [0.5, 1.0], "n": 3}, {"prompt": "q", "scores": [], "n": 4}]
    )
    table.with_format("numpy").save_to_disk(tmp_path / "saved")
    rows = replace(data(tmp_path / "saved"), columns={}, eval_size=0).load(1).train
    assert json.dumps(rows[0].columns) == '{"scores": [0.5, 1.0], "n": 3}'
    assert plain({"a": np.arange(2), "b": (np.float32(1.5), None)}) == {"a": [0, 1], "b": [1.5, None]}
