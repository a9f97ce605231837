"""The best and the worst of each group."""

from __future__ import annotations

import math

import torch

from pggrpo_cli.pairing.best_worst import BestWorst


def pairs(rewards: list[float], groups: list[int]) -> list[list[int]]:
    return BestWorst()(torch.tensor(rewards), torch.tensor(groups)).tolist()


def test_one_pair_a_group_that_varies() -> None:
    assert pairs([1, 3, 2, 5, 5, 0, 9], [0, 0, 0, 1, 1, 2, 2]) == [[1, 0], [6, 5]]


def test_ties_go_to_the_first_and_missing_are_left_out() -> None:
    assert pairs([2, 2, 1, 1], [0, 0, 0, 0]) == [[0, 2]]
    assert pairs([math.nan, 2, 1], [0, 0, 0]) == [[1, 2]]
    assert pairs([math.nan, math.nan], [0, 0]) == []
