"""What the schedules share: a factor of the number of updates, with a warm-up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from pggrpo_cli.errors import ConfigError


class LearningRate(LambdaLR):
    """lr of update u = 0, 1, … is each group's configured lr times `factor(u)`.

    Its state is the count of updates alone. The lr follows from the configuration, so a resumed run has the same lr to
    the bit, and one whose lr was changed on purpose (resume.allow_changed) really uses the new one.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, factor: Callable[[int], float]) -> None:
        super().__init__(optimizer, factor)

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.last_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.last_epoch = state_dict["updates"]
        self._step_count = self.last_epoch + 1
        for group, base, factor in zip(self.optimizer.param_groups, self.base_lrs, self.lr_lambdas, strict=True):
            group["initial_lr"] = base
            group["lr"] = base * factor(self.last_epoch)
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]


def warmup(update: int, warmup_updates: int) -> float:
    """(u + 1) / (warmup_updates + 1), at most 1: no update is spent on a learning rate of 0."""
    return min(1.0, (update + 1) / (warmup_updates + 1))


def progress(update: int, warmup_updates: int, total_updates: int) -> float:
    """From 0 at the end of the warm-up to 1 after the last update, then 1."""
    return min(1.0, max(0, update - warmup_updates) / (total_updates - warmup_updates))


def check_warmup(warmup_updates: int, total_updates: int) -> None:
    """Raises ConfigError if the run would end before its warm-up does."""
    if warmup_updates >= total_updates:
        raise ConfigError(
            f"`scheduler.warmup_updates`: {warmup_updates} is not less than the {total_updates} updates of the run "
            "(max_steps × passes_per_rollout × minibatches). Lower it, or raise trainer.max_steps."
        )
