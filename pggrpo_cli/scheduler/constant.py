"""The learning rate stays, after a warm-up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch

from pggrpo_cli.learning_rate import LearningRate, check_warmup, warmup
from pggrpo_cli.ranges import Range


@dataclass(frozen=True, kw_only=True)
class Constant:
    """lr(u) = lr · min(1, (u+1)/(w+1)), u = 0, 1, … the update, w warmup_updates."""

    warmup_updates: Annotated[int, Range(ge=0)]

    def __call__(self, optimizer: torch.optim.Optimizer, total_updates: int) -> LearningRate:
        """Raises ConfigError if the warm-up is as long as the run."""
        check_warmup(self.warmup_updates, total_updates)
        return LearningRate(optimizer, self.factor)

    def factor(self, update: int) -> float:
        return warmup(update, self.warmup_updates)
