"""Statistics of rewards, or of one term of them, by group, with missing rewards (NaN) left out."""

from __future__ import annotations

from dataclasses import dataclass

import torch

CONSTANT = 1e-8
"""A group whose rewards differ by no more than this, times their size, is constant: noise must not become signal."""


@dataclass(frozen=True, slots=True)
class GroupStatistics:
    """B rewards in M groups (group_index need not be sorted)."""

    present: torch.Tensor
    """bool [B]"""
    group_index: torch.Tensor
    count: torch.Tensor
    """[M] rewards that are there"""
    mean: torch.Tensor
    """[M]"""
    varies: torch.Tensor
    """bool [M]: max − min is more than rounding"""

    @classmethod
    def of(cls, rewards: torch.Tensor, group_index: torch.Tensor) -> GroupStatistics:
        groups = int(group_index.max()) + 1 if group_index.numel() else 0
        present = ~rewards.isnan()
        known = torch.where(present, rewards, 0.0)
        count = rewards.new_zeros(groups).index_add(0, group_index, present.to(rewards.dtype))
        mean = rewards.new_zeros(groups).index_add(0, group_index, known) / count.clamp_min(1)

        def extreme(fill: float, how: str) -> torch.Tensor:
            values = torch.where(present, rewards, fill)
            return rewards.new_full((groups,), fill).scatter_reduce(0, group_index, values, how)

        high, low = extreme(float("-inf"), "amax"), extreme(float("inf"), "amin")
        size = torch.maximum(high.abs(), low.abs()).clamp_min(1)
        return cls(present, group_index, count, mean, (high - low > CONSTANT * size) & (count > 1))

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """[B] → [M], over what is there."""
        known = torch.where(self.present, values, 0.0)
        return values.new_zeros(self.count.shape).index_add(0, self.group_index, known)

    def finish(self, advantages: torch.Tensor) -> torch.Tensor:
        """[B]: exactly 0 where the reward is missing or the group constant."""
        return torch.where(self.present & self.varies[self.group_index], advantages, 0.0)


def standardised(values: torch.Tensor, group_index: torch.Tensor, epsilon: float) -> torch.Tensor:
    """(value − mean) / (std + epsilon) within each group [B], std with ddof 1; exactly 0 where a value is missing or its
    group constant."""
    groups = GroupStatistics.of(values, group_index)
    centred = values - groups.mean[group_index]
    std = (groups.sum(centred.square()) / (groups.count - 1).clamp_min(1)).sqrt()
    return groups.finish(centred / (std + epsilon)[group_index])
