"""Scoring while the rollout goes on: what begins ahead, what counts, how calls are cut. Against a real process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pggrpo_cli.config import RewardSettings
from pggrpo_cli.scoring.calls import NamedReward
from pggrpo_cli.scoring.output import Output
from pggrpo_cli.scoring.pool import IsolatedReward, Pool
from pggrpo_cli.scoring.scorer import Scorer
from pggrpo_cli.types import RewardContext, Sample
from tests.scoring.test_scorer import EACH

SOURCE = """
from pathlib import Path

def told(completions, **columns):
    with open(Path(__file__).with_name("calls"), "a") as file:
        file.write(",".join(completions) + "\\n")
    return [float(len(one)) for one in completions]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(SOURCE)
    return tmp_path


@pytest.fixture
def pool(folder: Path) -> Iterator[Pool]:
    with Pool(1, RewardContext(run_dir=folder, device="cpu", seed=1), Output(folder)) as pool:
        yield pool


def scorer(pool: Pool, folder: Path, *, ahead: bool = True, **keys: Any) -> Scorer:
    node = {"_target_": "pggrpo_cli.reward.python.Python", "path": str(folder / "mine.py"), "name": "told"}
    reward = IsolatedReward(name="told", node=node, timeout_s=30)
    settings = RewardSettings(**EACH | {"isolated": True, "batch_size": 2} | keys)
    return Scorer({"told": NamedReward(reward=reward, settings=settings)}, pool, ahead=ahead)


def group(ordinal: int, *texts: str, columns: dict[str, Any] | None = None) -> list[Sample]:
    columns = {} if columns is None else columns  # one object, as of one row
    return [
        Sample(
            prompt=f"p{ordinal}",
            completion=text,
            completion_ids=list(text.encode()),
            finish_reason="stop",
            columns=columns,
            group=ordinal,
        )
        for text in texts
    ]


def calls(folder: Path, wanted: int = 0) -> list[str]:
    """What the reward was called with; waits until it was called `wanted` times."""
    file, deadline = folder / "calls", time.monotonic() + 60
    while wanted and (not file.exists() or len(file.read_text().splitlines()) < wanted):
        assert time.monotonic() < deadline, "the reward was not called ahead"
        time.sleep(0.01)
    return file.read_text().splitlines() if file.exists() else []


def test_a_group_is_scored_before_the_others_are_there(pool: Pool, folder: Path) -> None:
    first, second = group(0, "a", "bb", "ccc"), group(1, "dddd")
    scoring = scorer(pool, folder).begin()
    assert scoring.begins_ahead
    scoring.add(second)
    assert calls(folder, 1) == ["dddd"]
    scored = scoring.finish([*first, *second])
    assert scored.terms == {"told": [1.0, 2.0, 3.0, 4.0]}
    assert calls(folder) == ["dddd", "a,bb", "ccc"]  # never two groups in a call, and nothing twice


def test_a_group_that_was_sampled_again_is_scored_again(pool: Pool, folder: Path) -> None:
    columns = {"answer": "1"}
    scoring = scorer(pool, folder).begin()
    scoring.add(group(0, "a", "b", "cc", "dd", columns=columns))
    again = group(0, "a", "b", "cc", "ddd", columns=columns)
    scoring.add(again)
    assert scoring.finish(again).rewards == [1.0, 1.0, 2.0, 3.0]
    assert calls(folder) == ["a,b", "cc,dd", "cc,ddd"]


def test_what_was_begun_counts_only_if_the_completions_are_the_same(pool: Pool, folder: Path) -> None:
    scoring, samples = scorer(pool, folder).begin(), group(0, "a", "b", "cc")
    scoring.add(samples)
    changed = [*samples[:2], replace(samples[2], completion="cccc", completion_ids=[99])]
    assert scoring.finish(changed).rewards == [1.0, 1.0, 4.0]
    assert calls(folder) == ["a,b", "cc", "cccc"]


def test_rows_that_a_reward_does_not_apply_to_are_no_call(pool: Pool, folder: Path) -> None:
    scoring = scorer(pool, folder, applies_to=["maths"]).begin()
    other, maths = (
        group(0, "a", "b", columns={"data_source": "code"}),
        group(1, "ccc", columns={"data_source": "maths"}),
    )
    scoring.add(other)
    scoring.add(maths)
    assert scoring.finish([*other, *maths]).terms == {"told": [None, None, 3.0]}
    assert calls(folder) == ["ccc"]


@pytest.mark.parametrize("keys", [{"batch_size": None}, {"ahead": False}])
def test_what_takes_a_whole_step_or_is_told_to_waits(pool: Pool, folder: Path, keys: dict[str, Any]) -> None:
    scoring = scorer(pool, folder, **keys).begin()
    assert not scoring.begins_ahead
    samples = [*group(0, "a", "bb"), *group(1, "ccc")]
    scoring.add(samples[:2])
    assert scoring.finish(samples).rewards == [1.0, 2.0, 3.0]
    assert calls(folder) == (["a,bb,ccc"] if "batch_size" in keys else ["a,bb", "ccc"])
