"""Rewards less the mean of the others."""

from __future__ import annotations

import math

import pytest
import torch

from pggrpo_cli.advantage.leave_one_out import LeaveOneOut


def advantages(rewards: list[float], groups: list[int]) -> list[float]:
    made = torch.tensor(rewards, dtype=torch.float64)
    return LeaveOneOut()(made, made[:, None], torch.ones(1), torch.tensor(groups)).tolist()


def test_by_hand() -> None:
    assert advantages([1, 2, 6], [0, 0, 0]) == pytest.approx([1 - 4, 2 - 3.5, 6 - 1.5])


def test_missing_and_constant() -> None:
    assert advantages([1, math.nan, 3, 2], [0, 0, 0, 1]) == [-2, 0, 2, 0]
    assert advantages([0.1 + 0.2, 0.3, 0.3], [0] * 3) == [0, 0, 0]
