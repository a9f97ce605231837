"""What differs: from the defaults, and between runs; which runs belong together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pggrpo_cli.report.grouping import grouped, run_label
from pggrpo_cli.report.run import Run, read_run
from pggrpo_cli.report.settings import differences, flattened, from_defaults, shown_command
from tests.report.run_files import config, make_run


def test_keys_are_compared_as_text() -> None:
    first = {"a": {"b": 1, "c": [1, "x"], "d": {}}, "e": None}
    second = {"a": {"b": 1.0, "c": [1, "x"]}, "f": "null"}
    assert flattened(first) == {"a.b": "1", "a.c": '[1, "x"]', "a.d": "{}", "e": "null"}
    found = {one.key: one.values for one in differences([first, second])}
    assert found == {"a.b": ("1", "1.0"), "a.d": ("{}", "–"), "e": ("null", "–"), "f": ("–", "null")}


@pytest.mark.parametrize(
    ("words", "choices", "changed"),
    [
        ((), ["model=tiny", "logger=[]"], {}),
        (
            ("loss=grpo", "loss.kl_coef=0.5"),
            ["model=tiny", "loss=grpo", "logger=[]"],
            {"loss.kl_coef": ("0.02", "0.5")},
        ),
        (
            ("reward=[length,format]", "reward.format.weight=3", "trainer.max_steps=7"),
            ["model=tiny", "reward=[length,format]", "logger=[]"],
            {"reward.format.weight": ("1.0", "3"), "trainer.max_steps": ("24", "7")},
        ),
        (("model=qwen3_0_6b",), ["model=qwen3_0_6b", "logger=[]"], {}),
    ],
)
def test_from_defaults(words: tuple[str, ...], choices: list[str], changed: dict[str, tuple[str, str]]) -> None:
    found_choices, found = from_defaults(config(*words))
    assert found_choices == choices
    assert {one.key: one.values for one in found} == changed


def test_a_configuration_of_another_time_or_with_foreign_parts() -> None:
    values = config() | {"loss": {"_target_": "parts.Mine", "beta": 2.0}, "reward": {"mine": {"_target_": "parts.R"}}}
    _, found = from_defaults(values)
    changed = {one.key: one.values for one in found}
    assert changed["loss._target_"] == ("pggrpo_cli.loss.pg_grpo.PgGrpo", "parts.Mine")
    assert changed["reward.mine._target_"] == ("–", "parts.R")


def test_the_command_without_folders() -> None:
    assert shown_command(["/home/me/.venv/bin/pggrpo", "train", "reward=[a,b]"]) == "pggrpo train 'reward=[a,b]'"
    assert shown_command(["/x/pggrpo_cli/__main__.py", "train"]) == "pggrpo train"
    assert shown_command("nonsense") == ""


def runs_of(tmp_path: Path, *words: tuple[str, ...]) -> list[Run]:
    found = []
    for number, own in enumerate(words):
        for seed in (1, 2):
            name = f"{number}-{seed}"
            found.append(read_run(make_run(tmp_path / name, *own, steps=5, seed=seed), name))
    return found


def test_seeds_are_grouped_by_what_was_typed(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, ("loss=pg_grpo", "optimizer.lr=0.01"), ("loss=grpo", "optimizer.lr=0.01"))
    found = grouped(runs)
    assert [(group.label, [run.name for run in group.runs]) for group in found] == [
        ("loss=pg_grpo", ["0-1", "0-2"]),
        ("loss=grpo", ["1-1", "1-2"]),
    ]
    assert run_label(runs[1], found[0]) == "seed 2"


def test_without_words_by_the_keys_that_differ(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, (), ("loss=grpo",), ("loss=grpo", "loss.kl_coef=0.5"), ("trainer.minibatches=2",))
    runs = [replace(run, overrides=()) for run in runs]
    assert [group.label for group in grouped(runs)] == [
        "loss=pg_grpo trainer.minibatches=1",
        "loss=grpo loss.kl_coef=0.02 trainer.minibatches=1",
        "loss=grpo loss.kl_coef=0.5 trainer.minibatches=1",
        "loss=pg_grpo trainer.minibatches=2",
    ]


def test_words_that_tell_less_than_the_configurations_are_not_believed(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, ("loss=grpo",), ("loss=grpo", "loss.kl_coef=0.5"))
    runs = [replace(run, overrides=("loss=grpo",)) for run in runs]
    assert [group.label for group in grouped(runs)] == ["loss.kl_coef=0.02", "loss.kl_coef=0.5"]
