"""The learning rate falls on half a cosine, after a warm-up."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch

from pggrpo_cli.learning_rate import LearningRate, check_warmup, progress, warmup
from pggrpo_cli.ranges import Range


@dataclass(frozen=True, kw_only=True)
class Cosine:
    """With u = 0, 1, … the update, N all of them, w warmup_updates, f final_fraction:

        lr(u) = lr · min(1, (u+1)/(w+1)) · (f + (1−f) (1 + cos πp)/2),    p = max(0, u−w) / (N−w), at most 1

    Source: Loshchilov & Hutter, arXiv:1608.03983, without restarts.
    """

    warmup_updates: Annotated[int, Range(ge=0)]
    final_fraction: Annotated[float, Range(ge=0, le=1)]

    def __call__(self, optimizer: torch.optim.Optimizer, total_updates: int) -> LearningRate:
        """Raises ConfigError if the warm-up is as long as the run."""
        check_warmup(self.warmup_updates, total_updates)
        return LearningRate(optimizer, lambda update: self.factor(update, total_updates))

    def factor(self, update: int, total_updates: int) -> float:
        done = progress(update, self.warmup_updates, total_updates)
        fall = self.final_fraction + (1 - self.final_fraction) * (1 + math.cos(math.pi * done)) / 2
        return warmup(update, self.warmup_updates) * fall
