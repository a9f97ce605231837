"""Files that a configuration names: found missing from its values alone."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from pggrpo_cli.composing import compose
from pggrpo_cli.config import plain
from pggrpo_cli.data_files import check_files, check_rows
from pggrpo_cli.errors import ConfigError


@pytest.fixture(scope="module")
def base() -> dict[str, Any]:
    words = ["reward=[python,reward_model,implicit]", "reward.python.path=mine.py", "reward.python.name=score"]
    return plain(compose("train", [*words, "reward.reward_model.path=org/scorer", "reward.implicit.path=org/model"]))


@pytest.fixture
def values(base: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("def score(completions): ...\n")
    Path("rows.jsonl").write_text("{}\n")
    return copy.deepcopy(base)


def test_what_is_there_and_what_may_be_a_hub_id(values: dict[str, Any]) -> None:
    check_files(values)


@pytest.mark.parametrize(
    ("key", "path", "words"),
    [
        ("reward.python.path", "other.py", "there is no file other.py"),
        ("reward.reward_model.path", "./scorer", "there is no folder scorer"),
        ("reward.implicit.path", "~/no such folder", "there is no folder"),
        ("reward.implicit.reference_path", "/none/x.gguf", "there is no file /none/x.gguf"),
        ("reference.path", "../none", r"there is no folder \.\./none"),
        ("data.keep.path", "none.py", "there is no file none.py"),
    ],
)
def test_what_is_missing(values: dict[str, Any], key: str, path: str, words: str) -> None:
    *outer, last = key.split(".")
    node = values
    for name in outer:
        node = node[name]
    node[last] = path
    with pytest.raises(ConfigError, match=rf"`{key}`: {words}"):
        check_files(values)
    check_rows(values)  # a preview needs none of them


@pytest.mark.parametrize(("text", "words"), [
    ("def other(): ...\n", "`reward.python.name`: mine.py has no function 'score'; it has other"),
    ("scores = 1\n", "`reward.python.name`: mine.py has no function 'score'; it has none"),
    ("def score(:\n", "`reward.python.path`: mine.py is no Python: .* in line 2"),
    ("from functions import *\n", None), ("from functions import score\n", None), ("score = lambda completions: []\n", None),
    ("if True:\n    async def score(completions): ...\n", None), ("globals()['sco' + 're'] = print\n", None),
])  # fmt: skip
def test_a_function_that_is_not_in_its_file(values: dict[str, Any], text: str, words: str | None) -> None:
    """Told without running the file, and only where its text is enough to tell."""
    Path("mine.py").write_text("raise SystemExit\n" + text)
    if words is None:
        check_files(values)
        return
    with pytest.raises(ConfigError, match=words):
        check_files(values)


def test_all_that_is_missing_at_once(values: dict[str, Any]) -> None:
    values["reward"]["python"]["path"] = "other.py"
    values["model"] = {"_target_": "pggrpo_cli.model.hf.Hf", "path": "./none"}
    with pytest.raises(ConfigError) as refused:
        check_files(values)
    assert str(refused.value).count("`: there is no") == 2


def test_a_source_of_a_mixture_and_what_writes_its_file(values: dict[str, Any]) -> None:
    words = (
        "`data.sources.pairs.path`: outputs/arithmetic_preferences.jsonl does not exist.*`make preferences` writes it"
    )
    with pytest.raises(ConfigError, match=words):
        check_rows(plain(compose("train", ["experiment=mixed_preferences"])))
