"""advantage=leave_one_out: the reward less the mean of the others in its group (RLOO)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pggrpo_cli.groups import GroupStatistics


@dataclass(frozen=True, kw_only=True)
class LeaveOneOut:
    """A_i = R_i − mean(R_j, j ≠ i) = (R_i − mean) · n/(n−1), n the rewards that are there (Ahmadian et al. 2024,
    arXiv 2402.14740); missing rewards (NaN) get 0, a constant group (or a group of one) gives exactly 0."""

    def __call__(
        self, rewards: torch.Tensor, terms: torch.Tensor, weights: torch.Tensor, group_index: torch.Tensor
    ) -> torch.Tensor:
        groups = GroupStatistics.of(rewards, group_index)
        scale = groups.count / (groups.count - 1).clamp_min(1)
        return groups.finish((rewards - groups.mean[group_index]) * scale[group_index])
