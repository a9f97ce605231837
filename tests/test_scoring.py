"""Rewards at work: weighted, checked, and never silently 0."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from pggrpo_cli.errors import ConfigError, UserCodeError
from pggrpo_cli.prompts import PromptFormat
from pggrpo_cli.scoring import Scorer
from pggrpo_cli.types import Row, Sample

FORMAT = PromptFormat(system_prompt=None, prompt_suffix="!", max_prompt_tokens=None, overlong="drop")


@dataclass(frozen=True)
class Returns:
    function: Callable[[Sequence[Sample]], Any]

    def score(self, samples: Sequence[Sample]) -> Any:
        return self.function(samples)


def samples(*texts: str) -> list[Sample]:
    return [Sample(prompt="p", completion=t, completion_ids=[1], finish_reason="stop", columns={}) for t in texts]


def scorer(**rewards: Any) -> Scorer:
    return Scorer({name: (Returns(function), weight) for name, (function, weight) in rewards.items()})


def test_weighted_sum_of_what_applies() -> None:
    working = scorer(a=(lambda s: [1, 0.5, None], 2.0), b=(lambda s: [None, 4, None], 0.25))
    scored = working.score(samples("x", "y", "z"))
    assert scored.terms == {"a": [1.0, 0.5, None], "b": [None, 4.0, None]}
    assert scored.rewards[:2] == [2.0, 2.0]
    assert math.isnan(scored.rewards[2])


@pytest.mark.parametrize(
    "values",
    [
        [1, 0],
        (1, 0),
        [True, False],
        [np.float32(1), np.int64(0)],
        [torch.tensor(1.0), torch.tensor(0)],
        [np.bool_(True), np.array([0.0])],
        np.array([1.0, 0.0]),
        torch.tensor([1.0, 0.0]),
    ],
)
@pytest.mark.fault("T14")
def test_numbers_of_every_kind_are_taken(values: Any) -> None:
    assert scorer(a=(lambda s: values, 1.0)).score(samples("x", "y")).rewards == [1.0, 0.0]


@pytest.mark.parametrize(
    "values",
    [
        *(["1", 0], [math.nan, 0], [math.inf, 0], [[1], 0], [{}, 0], [object(), 0], [10**400, 0]),
        *([torch.tensor([1.0, 2.0]), 0], [np.array([]), 0], np.array([[1.0], [0.0]])),
    ],
)
@pytest.mark.fault("T14")
def test_nonsense_names_the_reward_and_the_completion(values: Any) -> None:
    with pytest.raises(UserCodeError, match=r"`reward.a`: returned .* for the completion 'xyz'"):
        scorer(a=(lambda s: values, 1.0)).score(samples("xyz", "y"))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        *(([1], "1 scores for 2"), (None, "NoneType"), (3.0, "float"), ("ab", "str"), (b"ab", "bytes")),
        *((np.array(3.0), "ndarray"), (torch.tensor(3.0), "Tensor"), (np.float64(1), "float64")),
    ],
)
@pytest.mark.fault("T14")
def test_a_wrong_number_of_scores(value: Any, message: str) -> None:
    with pytest.raises(UserCodeError, match=message):
        scorer(a=(lambda s: value, 1.0)).score(samples("x", "y"))


@pytest.mark.fault("T12")
def test_a_reward_that_raises_keeps_its_traceback() -> None:
    with pytest.raises(UserCodeError, match=r"`reward.a`: raised ZeroDivisionError") as caught:
        scorer(a=(lambda s: 1 / 0, 1.0)).score(samples("x"))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.fault("T15")
def test_rewards_do_not_touch_the_random_state() -> None:
    def mischief(_: Sequence[Sample]) -> list[float]:
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        return [1.0]

    def draws() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(5)
    expected = draws()
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(5)
    scorer(a=(mischief, 1.0)).score(samples("x"))
    assert draws() == expected


def test_reserved_names() -> None:
    with pytest.raises(ConfigError, match=r"`reward.margins`: the name is taken"):
        scorer(margins=(lambda s: [1.0], 1.0))


def test_the_dry_run_calls_every_reward_on_real_rows() -> None:
    seen: list[Sample] = []

    def look(batch: Sequence[Sample]) -> list[float]:
        seen.extend(batch)
        return [0.0] * len(batch)

    scorer(a=(look, 1.0)).dry_run([Row(prompt="2 + 2", columns={"answer": 4})], FORMAT)
    assert {sample.prompt for sample in seen} == {"2 + 2!"}
    assert {sample.completion for sample in seen} == {"", "0", "4"}
    with pytest.raises(UserCodeError):
        scorer(a=(lambda s: 1 / 0, 1.0)).dry_run([Row(prompt="p")], FORMAT)
