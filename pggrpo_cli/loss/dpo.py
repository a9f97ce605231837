"""loss=dpo: Direct Preference Optimization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch.nn import functional as F

from pggrpo_cli.objective import entropy_of_step
from pggrpo_cli.preference import chosen_nll, implicit_rewards
from pggrpo_cli.ranges import Range
from pggrpo_cli.types import LossOutput, TokenScores, TrainBatch


@dataclass(frozen=True, kw_only=True)
class Dpo:
    """Rafailov et al. 2023 (arXiv 2305.18290), equation 7: minimises the mean over the step's pairs (w chosen, l rejected)
    of −log σ(h), with the difference of implicit rewards

        h = β log[π_θ(y_w|x)/π_ref(y_w|x)] − β log[π_θ(y_l|x)/π_ref(y_l|x)].

    label_smoothing s (cDPO, Mitchell 2023): −(1 − s) log σ(h) − s log σ(−h); TRL's "sigmoid" ignores its key of that
    name. length_normalized: each log-ratio divided by its completion's length. reference_free: π_ref is uniform, no
    reference model is built. nll_coef: adds that times the mean over pairs of the chosen completion's mean negative
    log-likelihood per token (Pang et al. 2024).
    """

    beta: Annotated[float, Range(gt=0)]
    label_smoothing: Annotated[float, Range(ge=0, lt=0.5)]
    length_normalized: bool
    reference_free: bool
    nll_coef: Annotated[float, Range(ge=0)]

    needs_old_logprobs = False
    needs_pairs = True
    needs_entropy = False
    needs_advantages = False
    needs_zero_advantages = True

    @property
    def needs_reference(self) -> bool:
        return not self.reference_free

    def __call__(self, policy: TokenScores, batch: TrainBatch) -> LossOutput:
        rewards = implicit_rewards(policy, batch, self.beta, length_normalized=self.length_normalized)
        smoothing = self.label_smoothing
        losses = -(1 - smoothing) * F.logsigmoid(rewards.margins) - smoothing * F.logsigmoid(-rewards.margins)
        loss = losses.sum() / max(batch.num_pairs, 1)
        if self.nll_coef:
            loss = loss + self.nll_coef * chosen_nll(policy, batch)
        return LossOutput(loss=loss, metrics=rewards.metrics() | entropy_of_step(policy, batch)[1])
