"""Rewards less their group's mean."""

from __future__ import annotations

import math

import pytest
import torch

from pggrpo_cli.advantage.group_mean import GroupMean

NAN = math.nan


def advantages(rewards: list[float], groups: list[int]) -> list[float]:
    made = torch.tensor(rewards, dtype=torch.float64)
    return GroupMean()(made, made[:, None], torch.ones(1), torch.tensor(groups)).tolist()


def test_by_hand_in_any_order_of_rows() -> None:
    assert advantages([1, 0, 5, 3, 2, 4], [0, 0, 1, 1, 0, 1]) == [0, -1, 1, -1, 1, 0]


def test_missing_rewards_are_left_out_and_get_zero() -> None:
    assert advantages([1, NAN, 3], [0, 0, 0]) == [-1, 0, 1]
    assert advantages([NAN, NAN], [0, 0]) == [0, 0]


@pytest.mark.fault("T24")
def test_constant_groups_give_exactly_zero() -> None:
    assert advantages([0.1 + 0.2, 0.3, 0.3], [0, 0, 0]) == [0, 0, 0]
    assert advantages([7.0], [0]) == [0]
    assert advantages([1e9, 1e9 + 1e-6], [0, 0]) == [0, 0]
