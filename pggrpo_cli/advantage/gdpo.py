"""advantage=gdpo: each reward standardised within its group, then summed, then standardised over the step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch

from pggrpo_cli.groups import CONSTANT, standardised
from pggrpo_cli.ranges import Range


@dataclass(frozen=True, kw_only=True)
class Gdpo:
    """Liu et al. 2026 (arXiv 2601.05242), TRL's multi_objective_aggregation="normalize_then_sum":

        S_i = Σ_k w_k (r_ik − mean_k) / (std_k + epsilon)        A_i = S_i / (std(S) + epsilon)

    mean_k and std_k of reward k over those completions of i's group that have it, std(S) over all completions of the step
    that have any reward; both with ddof 1. The mean of S over the step is 0 by construction and not taken off again: so
    what is constant gives exactly 0. A reward that a completion does not have (NaN) adds nothing to its S; without any its
    advantage is 0. With trainer.filter_constant_groups each refill is a step of its own here.
    """

    epsilon: Annotated[float, Range(ge=0)]

    def __call__(
        self, rewards: torch.Tensor, terms: torch.Tensor, weights: torch.Tensor, group_index: torch.Tensor
    ) -> torch.Tensor:
        summed = torch.zeros_like(rewards)
        for term, weight in zip(terms.unbind(1), weights, strict=True):
            summed += weight * standardised(term, group_index, self.epsilon)
        count = int((~rewards.isnan()).sum())
        std = (summed.square().sum() / max(count - 1, 1)).sqrt()
        if std <= CONSTANT:  # terms that cancel leave rounding: noise must not become signal
            return torch.zeros_like(rewards)
        return summed / (std + self.epsilon)
