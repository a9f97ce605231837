"""pairing=best_worst: of each group the best and the worst completion."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True)
class BestWorst:
    """One pair a group whose rewards differ; ties go to the first. Missing rewards are left out."""

    def __call__(self, rewards: torch.Tensor, group_index: torch.Tensor) -> torch.Tensor:
        pairs: list[tuple[int, int]] = []
        for group in group_index.unique().tolist():
            rows = [row for row in (group_index == group).nonzero().flatten().tolist() if not rewards[row].isnan()]
            if not rows:
                continue
            best = max(rows, key=lambda row: float(rewards[row]))
            worst = min(rows, key=lambda row: float(rewards[row]))
            if rewards[best] > rewards[worst]:
                pairs.append((best, worst))
        return torch.tensor(pairs, dtype=torch.long).reshape(-1, 2)
