"""advantage=group_mean: the reward less its group's mean."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pggrpo_cli.groups import GroupStatistics


@dataclass(frozen=True, kw_only=True)
class GroupMean:
    """A_i = R_i − mean(R of the group); missing rewards (NaN) are left out and get 0, a constant group gives exactly 0."""

    def __call__(
        self, rewards: torch.Tensor, terms: torch.Tensor, weights: torch.Tensor, group_index: torch.Tensor
    ) -> torch.Tensor:
        groups = GroupStatistics.of(rewards, group_index)
        return groups.finish(rewards - groups.mean[group_index])
