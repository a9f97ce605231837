"""Sources by name: their rows, their formats, what is held out, and whose key an error names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pggrpo_cli import check
from pggrpo_cli.composing import compose
from pggrpo_cli.config import plain, typed
from pggrpo_cli.data.mixture import Mixture
from pggrpo_cli.errors import ConfigError, DataError
from pggrpo_cli.filters import RowFilter, Sieve
from pggrpo_cli.instantiate import component
from pggrpo_cli.prompts import PromptFormat, apply_format
from pggrpo_cli.types import Dataset

FORMAT = PromptFormat(system_prompt="Be brief.", prompt_suffix="!", max_prompt_tokens=None, overlong="drop")


def node(folder: Path, name: str, records: list[dict[str, Any]], **keys: Any) -> dict[str, Any]:
    file = folder / f"{name}.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    shared = {"eval_path": None, "eval_size": 0, "columns": {}, "as_chat": False, "streaming": False}
    return {"_target_": "pggrpo_cli.data.jsonl.Jsonl", "path": str(file), **shared, **keys}


def questions(name: str, count: int) -> list[dict[str, Any]]:
    return [{"prompt": f"{name} {number}"} for number in range(count)]


def load(sources: dict[str, Any], **weights: float) -> Dataset:
    return Mixture(sources=sources, weights=weights).load(seed=1)


def test_rows_know_their_source(tmp_path: Path) -> None:
    own = [{"prompt": "c 0", "data_source": "mine"}, {"prompt": "c 1"}]
    rows = load(
        {"a": node(tmp_path, "a", questions("a", 5), eval_size=2), "c": node(tmp_path, "c", own)},
        a=3,
    )
    assert rows.weights == {"a": 3.0, "c": 1.0}
    assert [row.part for row in rows.train] == ["a"] * 3 + ["c"] * 2
    assert [row.columns["data_source"] for row in rows.train] == ["a"] * 3 + ["mine", "c"]
    assert [row.part for row in rows.evaluation] == ["a", "a"]


def test_each_source_has_its_own_format(tmp_path: Path) -> None:
    a = node(tmp_path, "a", questions("a", 1), prompt_suffix=" = ?", system_prompt=None)
    rows = load({"a": a, "b": node(tmp_path, "b", questions("b", 1))})
    assert [apply_format(row, FORMAT).prompt for row in rows.train] == ["a 0 = ?", "Be brief.\n\nb 0!"]


def test_what_one_source_holds_out_is_not_trained_on_in_another(tmp_path: Path) -> None:
    same = questions("a", 6)
    pairs = [{"prompt": f"a {n}?", "chosen": "y", "rejected": "n"} for n in range(6)]
    sources = {
        "a": node(tmp_path, "a", same, eval_size=2, prompt_suffix="?"),
        "pairs": node(tmp_path, "pairs", pairs),
    }
    rows = load(sources)
    held_out = {apply_format(row, FORMAT).prompt.removeprefix("Be brief.\n\n") for row in rows.evaluation}
    assert len(held_out) == 2
    assert not held_out & {str(row.prompt) for row in rows.train if row.part == "pairs"}
    assert len(rows.train) == 8
    assert rows.notes == ("data.sources.pairs: 2 rows left out, whose prompts another source holds out",)
    with pytest.raises(DataError, match=r"`data\.sources\.pairs`: no row is left"):
        load({**sources, "pairs": node(tmp_path, "few", [pairs[int(next(iter(held_out))[2])]])})


def test_errors_name_the_key_of_the_source(tmp_path: Path) -> None:
    fine = node(tmp_path, "data.path", questions("a", 3))
    for changed, words in (
        ({"path": "nowhere.jsonl"}, r"^`data\.sources\.a\.path`: nowhere.jsonl does not exist"),
        ({"eval_size": 3}, r"^`data\.sources\.a\.eval_size`: 3 of 3"),
        ({"columns": {"prompt": "question"}}, r"data\.path\.jsonl:1: .* data\.sources\.a\.columns\.prompt names"),
    ):
        with pytest.raises((ConfigError, DataError), match=words):
            load({"a": fine | changed})


COMMAND = [
    "data=mixture",
    "+data@data.sources.sums=chain_sum",
    "+data@data.sources.legs=reasoning_gym",
    "data.sources.legs.task=leg_counting",
    "data.weights.sums=3",
    "data.sources.legs.size=30",
    "data.sources.legs.eval_size=4",
    "data.sources.sums.size=40",
    "data.sources.sums.eval_size=8",
]


def test_from_the_command_line() -> None:
    cfg = compose("train", [*COMMAND, "data.sources.legs.system_prompt=Count."])
    check.check(cfg)
    rows = component(typed(cfg).data, "data").load(1)
    assert rows.weights == {"sums": 3.0, "legs": 1.0}
    formats = {row.part: row.format for row in rows.train}
    assert formats == {"sums": {"prompt_suffix": " Answer with only the number."}, "legs": {"system_prompt": "Count."}}
    assert [row.part for row in rows.evaluation[:4]] == ["sums", "sums", "legs", "sums"]


def test_from_an_experiment_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "two.yaml").write_text(
        "# @package _global_\n"
        "defaults: [{/data@data.sources.sums: chain_sum}, {/data@data.sources.mine: jsonl}, {override /data: mixture}]\n"
        "data: {weights: {sums: 2}, sources: {mine: {path: mine.jsonl, overlong: error}}}\n"
    )
    cfg = compose("train", ["experiment=two", "data.sources.mine.eval_size=3"], str(tmp_path))
    check.check(cfg)
    data = typed(cfg).data
    assert list(data["sources"]) == ["sums", "mine"]
    assert data["sources"]["mine"]["eval_size"] == 3
    assert data["sources"]["mine"]["overlong"] == "error"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data=mixture"], r"`data\.sources`: there are none; add them like \+data@"),
        ([*COMMAND, "data.weights.sum=3"], r"`data\.weights\.sum`: there is no such source\. Did you mean sums\?"),
        ([*COMMAND, "data.weights.legs=0"], r"`data\.weights\.legs`: 0 is no weight; allowed is a number > 0"),
        ([*COMMAND, "+data.sources.legs.siz=3"], r"`data\.sources\.legs\.siz`: ReasoningGym has no such key.* size"),
        (
            [*COMMAND, "data.sources.sums.overlong=drp"],
            r"`data\.sources\.sums\.overlong`: 'drp' is none of the choices",
        ),
        ([*COMMAND, "data.sources.sums.size=x"], r"`data\.sources\.sums\.size`: 'x' is not a whole number"),
        ([*COMMAND, "+data@data.sources.more=mixture"], r"`data\.sources\.more`: is a mixture within a mixture"),
        ([*COMMAND, "+data@data.sources.p=preference_jsonl"], r"`data\.sources\.p`: .*\+data@data\.sources\.p=jsonl"),
        ([*COMMAND, "+data.sources.odd=3"], r"`data\.sources\.odd`: is no source"),
        ([w for w in COMMAND if "task=" not in w], r"`data\.sources\.legs\.task`: is not set"),
    ],
)
def test_what_is_wrong_is_said_with_its_key(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check.check(compose("train", words))


def test_filters_of_all_sources_and_of_one(tmp_path: Path) -> None:
    rows = [{"prompt": f"q {n}", "level": n % 4} for n in range(12)]
    both = {
        name: node(tmp_path, name, [{**row, "prompt": name + row["prompt"]} for row in rows]) for name in ("a", "b")
    }
    both["b"] |= {"where": {"level": 3}, "limit": 2}
    sieve = Sieve(RowFilter(where={"level": [0, 1]}, keep={}, deduplicate=False, limit=None))
    found = Mixture(sources=both, weights={}).load(1, sieve)
    assert [row.columns["level"] for row in found.train] == [0, 1, 0, 1, 0, 1, 3, 3]
    assert sieve.words() == "8 of 24 rows: 15 by where.level, 1 by limit"
    both["b"]["where"] = {"levle": 3}
    with pytest.raises(DataError, match=r"^`data\.sources\.b\.where\.levle`: no row has this column"):
        Mixture(sources=both, weights={}).load(1, sieve)
    with pytest.raises(ConfigError, match=r"`data\.sources\.a\.streaming`: a mixture keeps all rows in memory"):
        load({"a": node(tmp_path, "a", rows, streaming=True)})


def test_filters_of_a_source_are_checked_and_its_file_is_not_run_unasked() -> None:
    words = ["model=tiny", "data=mixture", "+data@data.sources.a=chain_sum", "data.sources.a.where.x=min:1"]
    words += ["data.sources.a.keep.path=mine.py"]
    values = plain(compose("train", words))
    with pytest.raises(ConfigError) as caught:
        check.check_values(values)
    assert "`data.sources.a.where.x`: 'min:1' is half of a range" in str(caught.value)
    assert "`data.sources.a.keep.name`: is missing" in str(caught.value)
    (found,) = check.foreign_nodes(values)
    assert (found.key, found.arguments["path"]) == ("data.sources.a.keep.path", "mine.py")
