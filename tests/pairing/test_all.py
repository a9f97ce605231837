"""All pairs whose rewards differ enough."""

from __future__ import annotations

import math

import torch

from pggrpo_cli.pairing.all import All


def pairs(margin: float, rewards: list[float], groups: list[int]) -> list[list[int]]:
    return All(margin=margin)(torch.tensor(rewards), torch.tensor(groups)).tolist()


def test_within_groups_only() -> None:
    assert pairs(0.0, [1, 2, 3, 9], [0, 0, 0, 1]) == [[1, 0], [2, 0], [2, 1]]


def test_margin_ties_and_missing() -> None:
    assert pairs(1.0, [1, 2, 3], [0, 0, 0]) == [[2, 0]]
    assert pairs(0.0, [1, 1, math.nan], [0, 0, 0]) == []
