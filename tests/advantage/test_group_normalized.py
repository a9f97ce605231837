"""Standardised rewards, ddof 1."""

from __future__ import annotations

import math
import statistics

import pytest
import torch

from pggrpo_cli.advantage.group_normalized import GroupNormalized


def advantages(rewards: list[float], groups: list[int], epsilon: float = 1e-4) -> list[float]:
    made = torch.tensor(rewards, dtype=torch.float64)
    return GroupNormalized(epsilon=epsilon)(made, made[:, None], torch.ones(1), torch.tensor(groups)).tolist()


def test_by_hand() -> None:
    rewards = [1.0, 0.0, 0.5, 2.0]
    std = statistics.stdev(rewards) + 1e-4
    assert advantages(rewards, [0] * 4) == pytest.approx([(r - 0.875) / std for r in rewards])


@pytest.mark.fault("T24")
def test_missing_and_constant() -> None:
    std = statistics.stdev([1.0, 3.0]) + 1e-4
    assert advantages([1.0, math.nan, 3.0, 5.0, 5.0], [0, 0, 0, 1, 1]) == pytest.approx([-1 / std, 0, 1 / std, 0, 0])
    assert advantages([0.1 + 0.2, 0.3, 0.3], [0] * 3, epsilon=0.0) == [0, 0, 0]
    assert advantages([4.0], [0], epsilon=0.0) == [0]
