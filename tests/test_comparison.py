"""The numbers of an evaluation, by hand."""

from __future__ import annotations

import math

import pytest

from pggrpo_cli.comparison import Method, Sampled, by_prompt, differences, parts, summary

METHOD = Method(ks=(1, 2, 4), solved_at=1.0, confidence=0.95, resamples=500, seed=0)


def sampled(*rewards: list[float], **terms: list[list[float | None]]) -> Sampled:
    return Sampled(
        rewards=list(rewards),
        terms=terms or {"a": [list(one) for one in rewards]},
        lengths=[[4] * len(one) for one in rewards],
        truncated=[[True] + [False] * (len(one) - 1) for one in rewards],
    )


def test_numbers_by_prompt() -> None:
    values = by_prompt(sampled([1, 0, 0, 0.5], [1, 1, 1, 1], [0, 0, 0, 0]), "sampled", METHOD)
    assert values["sampled reward"] == [0.375, 1.0, 0.0]
    assert values["pass@1"] == [0.25, 1.0, 0.0]  # 0.5 is not solved
    assert values["pass@2"] == [0.5, 1.0, 0.0]
    assert values["pass@4"] == [1.0, 1.0, 0.0]
    assert values["sampled tokens"] == [4.0] * 3
    assert values["sampled truncated"] == [0.25] * 3
    assert "sampled a" not in values  # a single reward is the reward


def test_several_rewards_stand_apart_and_what_does_not_apply_is_left_out() -> None:
    terms: dict[str, list[list[float | None]]] = {"a": [[1.0, None], [None, None]], "b": [[2.0, 4.0], [1.0, 3.0]]}
    values = by_prompt(sampled([1.0, math.nan], [math.nan, math.nan], **terms), "sampled", METHOD)
    assert values["sampled reward"][0] == 1.0
    assert math.isnan(values["sampled reward"][1])
    assert values["sampled b"] == [3.0, 2.0]
    assert values["sampled a"][0] == 1.0
    assert values["pass@1"][0] == 1.0
    assert math.isnan(values["pass@1"][1])
    assert "pass@2" not in values  # one score is left of the first prompt's two
    assert summary(values, METHOD)["sampled reward"].mean == 1.0


def test_a_single_greedy_completion_has_no_pass_at_k() -> None:
    assert not [name for name in by_prompt(sampled([1.0], [0.0]), "greedy", METHOD) if name.startswith("pass")]


def test_a_paired_difference_is_narrower_than_the_two_intervals() -> None:
    hard = [[float(index % 10 < 5)] for index in range(200)]
    better = [[min(1.0, one[0] + (index % 20 == 7))] for index, one in enumerate(hard)]
    ours, theirs = (by_prompt(sampled(*rewards), "greedy", METHOD) for rewards in (better, hard))
    found = differences(ours, theirs, METHOD)["greedy reward"]
    assert found.mean == pytest.approx(0.05)
    assert 0 < found.low < 0.05 < found.high
    alone = summary(ours, METHOD)["greedy reward"]
    assert found.high - found.low < (alone.high - alone.low) / 2


def test_by_part_in_the_order_of_the_data() -> None:
    values = by_prompt(sampled([1.0], [0.0], [1.0]), "greedy", METHOD)
    found = parts(["sums", "legs", "sums"], values, METHOD)
    assert list(found) == ["sums", "legs"]
    assert found["sums"]["greedy reward"].mean == 1.0
    assert found["legs"]["greedy reward"].mean == 0.0
