"""DPO's implicit rewards of pairs, for the losses that compare."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pggrpo_cli.metrics import Metric, mean
from pggrpo_cli.objective import sum_by_sequence
from pggrpo_cli.types import TokenScores, TrainBatch


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedRewards:
    """Implicit rewards r_DPO(y, x) = β log[π_θ(y|x)/π_ref(y|x)] of P pairs, and log π_θ(y|x). All [P]."""

    chosen: torch.Tensor
    rejected: torch.Tensor
    chosen_logprobs: torch.Tensor
    rejected_logprobs: torch.Tensor

    @property
    def margins(self) -> torch.Tensor:
        """[P] chosen − rejected."""
        return self.chosen - self.rejected

    def metrics(self) -> dict[str, Metric]:
        """rewards/chosen|rejected|margins|accuracies (ties count as wrong), logps/chosen|rejected: means over pairs."""
        pairs = self.chosen.shape[0]
        named = {
            "rewards/chosen": self.chosen,
            "rewards/rejected": self.rejected,
            "rewards/margins": self.margins,
            "rewards/accuracies": (self.chosen > self.rejected).to(self.chosen.dtype),
            "logps/chosen": self.chosen_logprobs,
            "logps/rejected": self.rejected_logprobs,
        }
        return {name: mean(value.detach().sum(), pairs) for name, value in named.items()}


def implicit_rewards(policy: TokenScores, batch: TrainBatch, beta: float, *, length_normalized: bool) -> PairedRewards:
    """Of batch.pairs. Without reference log-probabilities π_ref is uniform: its term is left out."""
    if batch.pairs is None:
        raise ValueError("this loss needs pairs")
    logprobs = sum_by_sequence(policy.logprobs, batch)
    log_ratios = logprobs if batch.ref_logprobs is None else logprobs - sum_by_sequence(batch.ref_logprobs, batch)
    if length_normalized:
        log_ratios = log_ratios / batch.lengths.clamp_min(1)
    chosen, rejected = batch.pairs.unbind(1)
    return PairedRewards(
        chosen=beta * log_ratios[chosen],
        rejected=beta * log_ratios[rejected],
        chosen_logprobs=logprobs[chosen],
        rejected_logprobs=logprobs[rejected],
    )


def chosen_nll(policy: TokenScores, batch: TrainBatch) -> torch.Tensor:
    """The share of: mean over the step's pairs of the chosen completion's mean negative log-likelihood per token. 0-d."""
    assert batch.pairs is not None
    per_token = sum_by_sequence(policy.logprobs, batch) / batch.lengths.clamp_min(1)
    return -per_token[batch.pairs[:, 0]].sum() / max(batch.num_pairs, 1)
