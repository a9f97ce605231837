"""The math-verify library's verdicts, in the process they run in."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import yaml

from pggrpo_cli.errors import DataError
from pggrpo_cli.reward.math_verify import MathVerify
from pggrpo_cli.scoring.answers import Answers
from pggrpo_cli.scoring.output import Output
from pggrpo_cli.scoring.pool import IsolatedReward, Pool
from pggrpo_cli.types import RewardContext, Sample, ScoreError
from tests.command_line import ROOT

NODE = yaml.safe_load((ROOT / "conf" / "reward" / "math_verify.yaml").read_text())["math_verify"]


def sample(completion: str, answer: Any = "1/2") -> Sample:
    return Sample(
        prompt="p", completion=completion, completion_ids=[0], finish_reason="stop", columns={"answer": answer}
    )


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    folder: Path = tmp_path_factory.mktemp("run")
    with Pool(1, RewardContext(run_dir=folder, device="cpu", seed=1), Output(folder)) as pool:
        yield pool


def submit(pool: Pool, *samples: Sample, timeout_s: float = 60.0) -> Future[Answers]:
    return pool.submit(IsolatedReward(name="math_verify", node=NODE, timeout_s=timeout_s), samples)


@pytest.mark.parametrize(
    ("completion", "answer", "score"),
    [
        ("The answer is $\\boxed{\\frac{1}{2}}$.", "1/2", 1.0),
        ("So $x = 0.5$", "$\\frac{1}{2}$", 1.0),
        ("I get \\boxed{\\frac{2}{4}}", "\\frac{1}{2}", 1.0),
        ("It is 3.", "3", 1.0),
        ("It is 4.", "3", 0.0),
        ("$\\{2, 1\\}$", "$\\{1, 2\\}$", 1.0),
        ("$(x+1)^2$", "$x^2 + 2x + 1$", 1.0),
        ("no idea", "3", 0.0),
        ("", "3", 0.0),
        ("3", 3, 1.0),
        ("3", "", None),
    ],
)
def test_verdicts(pool: Pool, completion: str, answer: Any, score: float | None) -> None:
    assert submit(pool, sample(completion, answer)).result(120).answers == [score]


@pytest.mark.fault("T13")
def test_an_answer_that_takes_for_ever(pool: Pool) -> None:
    submit(pool, sample("3", "3")).result(120)
    (error,) = submit(pool, sample("$9^{9^{9^{9}}}$", "$9^{9^{9^{9}}} + 1$"), timeout_s=2).result(120).answers
    if not isinstance(error, ScoreError):  # a newer library may see it without computing it
        assert error == 0.0
    assert submit(pool, sample("3", "3")).result(120).answers == [1.0]


def test_a_column_that_is_not_there(pool: Pool) -> None:
    bare = Sample(prompt="p", completion="3", completion_ids=[0], finish_reason="stop", columns={"x": 1})
    with pytest.raises(DataError, match=r"no column 'answer'; it has 'x'"):
        submit(pool, bare).result(120)


def test_it_does_not_need_a_process_of_its_own() -> None:
    assert MathVerify(answer_column="answer").score([sample("0.5")]) == [1.0]
