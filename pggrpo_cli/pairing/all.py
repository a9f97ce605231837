"""pairing=all: every two completions of a group whose rewards differ enough."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch

from pggrpo_cli.ranges import Range


@dataclass(frozen=True, kw_only=True)
class All:
    """All pairs (i, j) of a group with R_i − R_j > margin. Missing rewards are left out."""

    margin: Annotated[float, Range(ge=0)]

    def __call__(self, rewards: torch.Tensor, group_index: torch.Tensor) -> torch.Tensor:
        same = group_index[:, None] == group_index[None]
        better = rewards[:, None] - rewards[None] > self.margin  # false where one is NaN
        return (same & better).nonzero()
