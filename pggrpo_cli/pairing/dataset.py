"""pairing=dataset: the pairs that the data set brings, chosen first."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pggrpo_cli.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A group is a pair: its rows come in order chosen, rejected, whatever the rewards say."""

    def __call__(self, rewards: torch.Tensor, group_index: torch.Tensor) -> torch.Tensor:
        pairs: list[list[int]] = []
        for group in group_index.unique().tolist():
            rows = (group_index == group).nonzero().flatten().tolist()
            if len(rows) != 2:
                raise DataError(
                    f"`pairing`: a group of {len(rows)} completions is no pair; pairing=dataset needs sampler=offline "
                    "and preference data."
                )
            pairs.append(rows)
        return torch.tensor(pairs, dtype=torch.long).reshape(-1, 2)
