"""Tasks of a verifiers environment as rows, by the real library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pggrpo_cli.data.verifiers import Verifiers
from pggrpo_cli.errors import ConfigError
from tests.data.verifiers_environments import write_environments


def load(environment: str, **keys: Any) -> Any:
    keys = {"options": {}, "size": None, "eval_size": 0} | keys
    return Verifiers(environment=environment, **keys).load(seed=1)


@pytest.fixture
def environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_environments(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.parametrize(("installed", "words"), [("", "is not installed"), ("0.1.14", "version 0.1.14 is installed")])
def test_without_the_library(installed: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pggrpo_cli.verifiers_environment.installed_version", lambda: installed)
    with pytest.raises(
        ConfigError, match=rf"`data`: the verifiers library {words}; 0.4 .* pip install 'pggrpo\[verifiers\]'"
    ):
        load("sums_env")


@pytest.mark.verifiers
@pytest.mark.usefixtures("environments")
def test_tasks_are_rows() -> None:
    rows = load("sums_env", options={"count": 9}, size=5, eval_size=2)
    assert (len(rows.train), len(rows.evaluation)) == (3, 2)
    by_source = {row.source: row for row in [*rows.train, *rows.evaluation]}
    row = by_source["sums_env:4"]
    assert row.prompt == [
        {"role": "system", "content": "Only the number."},
        {"role": "user", "content": "4 + 1 = ?"},
    ]
    assert row.columns["answer"] == "5"
    assert row.columns["info"] == {"limit": 2}
    assert row.columns["task_data"]["idx"] == 4
    assert row.columns["task_data"]["prompt"] == "4 + 1 = ?"


@pytest.mark.verifiers
@pytest.mark.usefixtures("environments")
@pytest.mark.parametrize(
    ("environment", "keys", "words"),
    [
        ("nowhere_env", {}, "`data.environment`: 'nowhere_env' cannot be imported"),
        ("broken_env", {}, "nothing_of_this_name"),
        ("old_env", {}, "verifiers before 0.4"),
        ("sums_env", {"options": {"cuont": 3}}, "`data.options`: sums_env refuses them: cuont"),
        ("endless_env", {}, "`data.size`: the tasks of 'endless_env' never end"),
        ("setup_env", {}, "its tasks have a setup"),
        ("container_env", {}, "its tasks need a container"),
        ("tools_env", {}, "its model has tools"),
        ("speakers_env", {}, "an Env of its own says who speaks"),
    ],
)
def test_refused(environment: str, keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(environment, **keys)
    assert words in str(caught.value)
