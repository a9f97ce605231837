"""Filters of rows: what stays, what is counted, and that nothing is left out in silence."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pggrpo_cli.check import check_values, checked, foreign_nodes
from pggrpo_cli.composing import compose
from pggrpo_cli.config import MAPPING_KEYS, build, plain
from pggrpo_cli.data.jsonl import Jsonl
from pggrpo_cli.errors import ConfigError, DataError, UserCodeError
from pggrpo_cli.filters import RowFilter, Sieve, conditions
from pggrpo_cli.row_loading import load_rows
from pggrpo_cli.types import Dataset, OfflineCompletion, Row

NOTHING = RowFilter(where={}, keep={"path": None, "name": None}, deduplicate=False, limit=None)
ROWS = [
    Row(
        prompt=f"q{index % 8}",
        columns={"level": index % 4, "kind": "abcd"[index % 4], "extra": {"rate": index / 10}},
        source=f"f:{index + 1}",
    )
    for index in range(10)
]


def kept(rows: list[Row] = ROWS, **keys: Any) -> tuple[list[int], Sieve]:
    sieve = Sieve(replace(NOTHING, **keys))
    return [place for place, _ in sieve.kept(rows)], sieve


@pytest.mark.parametrize(
    ("where", "places"),
    [
        ({}, list(range(10))),
        ({"level": 3}, [3, 7]),
        ({"kind": ["a", "d"]}, [0, 3, 4, 7, 8]),
        ({"level": {"min": 1, "max": 2}}, [1, 2, 5, 6, 9]),
        ({"level": {"min": 3}}, [3, 7]),
        ({"kind": {"max": "b"}}, [0, 1, 4, 5, 8, 9]),
        ({"extra": {"rate": {"min": 0.25, "max": 0.5}}}, [3, 4, 5]),
        ({"extra.rate": {"max": 0.1}}, [0, 1]),
        ({"level": 0, "extra": {"rate": {"min": 0.4}}}, [4, 8]),
    ],
)
def test_where(where: dict[str, Any], places: list[int]) -> None:
    assert kept(where=where)[0] == places


def test_a_row_without_the_column_or_with_null_is_left_out_and_null_can_be_asked_for() -> None:
    rows = [Row(prompt="a", columns={"x": 1}), Row(prompt="b"), Row(prompt="c", columns={"x": None})]
    assert kept(rows, where={"x": {"min": 0}})[0] == [0]
    assert kept(rows, where={"x": [None, 1]})[0] == [0, 1, 2]
    assert kept(rows, where={"x": None})[0] == [1, 2]


def test_duplicates_are_rows_with_the_same_prompt_and_completions() -> None:
    assert kept(deduplicate=True)[0] == list(range(8))
    answer = OfflineCompletion(content="x", preference=None)
    rows = [Row(prompt="a"), Row(prompt="a", completions=(answer,)), Row(prompt="a", columns={"other": 1})]
    places, sieve = kept(rows, deduplicate=True)
    assert places == [0, 1]
    assert sieve.dropped == {"duplicates": 1}


def test_each_reason_is_counted_once_a_row() -> None:
    places, sieve = kept(where={"level": [0, 1]}, deduplicate=True)
    assert places == [0, 1, 4, 5]
    assert sieve.words() == "4 of 10 rows: 4 by where.level, 2 duplicates"
    many = [Row(prompt=str(index), columns={"x": index}) for index in range(2000)]
    assert kept(many, where={"x": {"max": 811}})[1].words() == "812 of 2,000 rows: 1,188 by where.x"
    assert kept()[1].words() == ""


def test_a_column_that_no_row_has() -> None:
    with pytest.raises(
        DataError, match=r"`data.where.levle`: no row has this column. Did you mean level\? The columns"
    ):
        kept(where={"levle": None})
    with pytest.raises(DataError, match=r"`data.where.extra.rat`: no row has this column"):
        kept(where={"level": 0, "extra": {"rat": 1}})


def test_nothing_left_says_what_left_it_out() -> None:
    with pytest.raises(DataError, match=r"none of 10 rows is left: 10 by where.level. level is 0, 1, 2, for example"):
        kept(where={"level": "3"})
    with pytest.raises(DataError, match=r"7 by where.level, 3 by where.extra.rate"):
        kept(where={"level": 0, "extra": {"rate": {"min": 2}}})


def test_a_range_over_values_that_have_no_order() -> None:
    with pytest.raises(ConfigError, match=r"`data.where.kind`: f:1 has 'a' there, which has no order with 1"):
        kept(where={"kind": {"min": 1}})


def test_a_function_of_the_users(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import numpy\n"
        "def good(row):\n    row['extra']['rate'] = 9\n    return numpy.bool_(row['level'] == 3 and row['prompt'] != 'q3')\n"
        "def raises(row):\n    return 1 / row['level']\n"
        "def number(row):\n    return 0.5\n"
    )

    def keep(name: str) -> dict[str, Any]:
        return {"keep": {"path": str(tmp_path / "mine.py"), "name": name}}

    places, sieve = kept(**keep("good"))
    assert (places, sieve.dropped) == ([7], {"keep": 9})
    assert ROWS[7].columns["extra"] == {"rate": 0.7}
    with pytest.raises(UserCodeError, match=r"`data.keep`: raises raised ZeroDivisionError for f:1"):
        kept(**keep("raises"))
    with pytest.raises(UserCodeError, match=r"`data.keep`: number returned 0.5 for f:1; True"):
        kept(**keep("number"))
    with pytest.raises(ConfigError, match=r"`data.keep.name`: .*no function 'other'; it has good, raises, number"):
        kept(**keep("other"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    lines = [{"prompt": f"q{index}", "answer": str(index), "level": index % 4} for index in range(40)]
    path = tmp_path / "f.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def load(file: Path, *words: str) -> tuple[Dataset, Sieve]:
    return load_rows(checked(compose("train", ["model=tiny", "data=jsonl", f"data.path={file}", *words])))


@pytest.mark.parametrize("streaming", ["true", "false"])
def test_rows_are_held_out_of_those_that_stay_and_the_limit_is_for_training(file: Path, streaming: str) -> None:
    words = [f"data.streaming={streaming}", "data.where.level=[0,1]", "data.eval_size=5"]
    rows, sieve = load(file, *words)
    assert (len(rows.train), len(rows.evaluation)) == (15, 5)
    assert {row.columns["level"] for row in [*rows.train, *rows.evaluation]} == {0, 1}
    assert sieve.words() == "20 of 40 rows: 20 by where.level"
    fewer, sieve = load(file, *words, "data.limit=4")
    assert list(fewer.train) == list(rows.train)[:4]
    assert list(fewer.evaluation) == list(rows.evaluation)
    assert sieve.words() == "9 of 40 rows: 20 by where.level, 11 by limit"


def test_a_held_out_set_of_its_own_is_taken_as_it_is(file: Path) -> None:
    rows, sieve = load(file, f"data.eval_path={file}", "data.where.level=0")
    assert (len(rows.train), len(rows.evaluation), sieve.seen) == (10, 40, 40)


def test_a_class_that_knows_no_filters_has_its_training_rows_filtered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_rows.py").write_text(
        "from pggrpo_cli.types import Dataset, Row\n"
        "class Own:\n    def load(self, seed):\n        rows = [Row(prompt=str(i), columns={'i': i}) for i in range(6)]\n"
        "        return Dataset(train=rows, evaluation=rows[:2])\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    values = plain(compose("train", ["model=tiny", "data.where.i.max=3", "data.limit=2"]))
    values["data"] = {key: values["data"][key] for key in MAPPING_KEYS["data"]} | {"_target_": "own_rows.Own"}
    rows, sieve = load_rows(build(values))
    assert [row.prompt for row in rows.train] == ["0", "1"]
    assert len(rows.evaluation) == 2
    assert sieve.words() == "2 of 6 rows: 2 by where.i, 2 by limit"


def composed(*words: str) -> Mapping[str, Any]:
    return plain(compose("train", ["model=tiny", *words]))


def test_what_a_shell_hands_over() -> None:
    both = composed("data.where.pass_rate={min:0.1,max:0.9}", "data.where.a.b=x")
    assert both["data"]["where"] == {"pass_rate": {"min": 0.1, "max": 0.9}, "a": {"b": "x"}}
    assert dict(conditions(both["data"]["where"])) == {"pass_rate": {"min": 0.1, "max": 0.9}, "a.b": "x"}
    apart = composed("data.where.pass_rate.min=0.1", "data.where.pass_rate.max=0.9")
    assert apart["data"]["where"] == {"pass_rate": {"min": 0.1, "max": 0.9}}
    check_values(both)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        # What bash makes of data.where.rate={min:0.1,max:0.9} without quotes.
        (["data.where.rate=min:0.1", "data.where.rate=max:0.9"], r"`data.where.rate`: 'max:0.9' is half of a range"),
        (["data.where.rate={min:1,most:2}"], r"`data.where.rate`: .* is no range; allowed is {min: …, max: …}"),
        (["data.where.rate.min=null"], r"`data.where.rate`: .* is no range"),
        (["data.where.rate.min=0.9", "data.where.rate.max=0.1"], r"`data.where.rate`: min=0.9 is more than max=0.1"),
        (["data.where.rate=[]"], r"`data.where.rate`: \[\] is no list of values"),
        (["data.where=3"], r"`data.where`: 3 is not a mapping"),
        (["data.limit=0"], r"`data.limit`: 0 is not ≥ 1"),
        (["data.deduplicate=yes please"], r"`data.deduplicate`: 'yes please' is not true or false"),
        (["data.keep.path=mine.py"], r"`data.keep.name`: is missing beside data.keep.path"),
        (["+data.keep.nmae=x"], r"`data.keep`: .* is not {path: mine.py, name: good_row}"),
    ],
)
def test_filters_that_make_no_sense(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_values(composed(*words))


def test_a_file_that_a_configuration_names_is_code_of_somebody_elses() -> None:
    (node,) = foreign_nodes(composed("data.keep.path=mine.py", "data.keep.name=good"))
    assert (node.key, node.target, node.arguments["path"]) == ("data.keep.path", "pggrpo_cli.filters.Sieve", "mine.py")
    assert foreign_nodes(composed()) == []


def test_a_numpy_number_is_a_number(tmp_path: Path) -> None:
    rows = [Row(prompt="a", columns={"x": np.float64(0.5)}), Row(prompt="b", columns={"x": np.int64(2)})]
    assert kept(rows, where={"x": {"min": 1}})[0] == [1]


def test_jsonl_without_a_sieve(file: Path) -> None:
    data = Jsonl(path=str(file), eval_path=None, eval_size=4, columns={}, as_chat=False, streaming=False)
    assert len(data.load(1).train) == 36
