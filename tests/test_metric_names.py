"""sweep.metric before a run: what can be known to be wrong, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from pggrpo_cli.metric_names import KNOWN, metric_problems

ROOT = Path(__file__).parent.parent
OURS = {group: {"_target_": f"pggrpo_cli.{group}.x.X"} for group in ("loss", "sampler", "order", "data")}


def problems(metric: str | None, **values: Any) -> list[str]:
    rewards = {"exact_answer": {}, "format": {}}
    whole = {**OURS, "reward": rewards, "evaluation": {"every": 8}, "sweep": {"metric": metric}, **values}
    return list(metric_problems(whole))


def test_the_list_is_that_of_the_page() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    listed = set()
    for cell in re.findall(r"^\| (`.*?) \|", page, re.M):
        first, *others = re.findall(r"`([^`]+)`", cell.replace("\\|", "|"))
        listed.add(first)
        for name in others:  # `completions/mean_length`, `min_length`: the same folder
            last = name.removeprefix("…/")
            listed.add(name if "/" in last or "/" not in first else f"{first.rpartition('/')[0]}/{last}")
    families = {name for name in listed if "<name>" in name}
    assert listed - families == KNOWN
    assert {name.replace("<name>", "x") for name in families} == {
        "rewards/x/mean", "eval/rewards/x/mean", "sources/x/reward", "eval/sources/x/reward", "sources/x/prompts"
    }  # fmt: skip


@pytest.mark.parametrize(
    "metric",
    [None, "eval/reward", "reward", "rewards/format/mean", "eval/rewards/format/mean", "sources/a/reward", "kl"],
)
def test_fine(metric: str | None) -> None:
    assert problems(metric) == []


@pytest.mark.parametrize(
    ("metric", "values", "words"),
    [
        ("eval/rewrad", {}, ["'eval/rewrad' is no metric", "Did you mean eval/reward"]),
        ("rewards/fromat/mean", {}, ["Did you mean format?", "It has: exact_answer, format."]),
        ("rewards/format", {}, ["is no metric", "Did you mean rewards/format/mean"]),
        ("eval/reward", {"evaluation": {"every": None}}, ["evaluation.every=null", "sweep.metric=reward"]),
        ("kl:min", {}, ["sweep.metric=kl sweep.direction=minimize"]),
        ("", {}, ["is empty", "sweep.metric=null"]),
    ],
)
def test_refused(metric: str, values: dict[str, Any], words: list[str]) -> None:
    (problem,) = problems(metric, **values)
    assert problem.startswith("`sweep.metric`: ")
    for one in words:
        assert one in problem


def test_a_class_of_ones_own_may_log_anything() -> None:
    assert problems("my/number", loss={"_target_": "mine.Loss"}) == []
    assert problems("my/number") != []
