"""advantage=group_normalized: the reward standardised within its group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch

from pggrpo_cli.groups import standardised
from pggrpo_cli.ranges import Range


@dataclass(frozen=True, kw_only=True)
class GroupNormalized:
    """A_i = (R_i − mean) / (std + epsilon), std with ddof 1, over the group's rewards that are there (Shao et al. 2024);
    missing rewards (NaN) get 0, a constant group (or a group of one) gives exactly 0."""

    epsilon: Annotated[float, Range(ge=0)]

    def __call__(
        self, rewards: torch.Tensor, terms: torch.Tensor, weights: torch.Tensor, group_index: torch.Tensor
    ) -> torch.Tensor:
        return standardised(rewards, group_index, self.epsilon)
