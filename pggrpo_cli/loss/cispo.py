"""loss=cispo: clipped importance weights instead of clipped updates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch

from pggrpo_cli.objective import (
    bounded_exp,
    log_ratio,
    ratio_metrics,
    regularisers,
    weighted,
)
from pggrpo_cli.ranges import Range
from pggrpo_cli.types import LossOutput, TokenScores, TrainBatch


@dataclass(frozen=True, kw_only=True)
class Cispo:
    """MiniMax-M1 (arXiv 2506.13585), equation 4, minimised: the mean over all tokens of the step of

        −sg[ min(r_it, ratio_max) ] A_i log π_θ(y_it|·),    + kl_coef · KL(π_θ‖π_orig),

    sg stops the gradient: every token keeps one, with a bounded weight. ratio_max is the absolute upper bound (TRL's
    epsilon_high, 5.0). The paper uses no KL and advantage=group_normalized.
    nll_coef adds that times the likelihood of chosen completions, see objective.nll_of_step.
    """

    ratio_max: Annotated[float, Range(gt=0)]
    kl_coef: Annotated[float, Range(ge=0)]
    kl_estimator: Literal["k1", "k2", "k3"]
    kl_reduction: Literal["token_mean", "sequence_sum"]
    entropy_coef: Annotated[float, Range(ge=0)]
    nll_coef: Annotated[float, Range(ge=0)]

    needs_old_logprobs = True
    needs_pairs = False
    needs_advantages = True

    @property
    def needs_reference(self) -> bool:
        return self.kl_coef > 0

    @property
    def needs_entropy(self) -> bool:
        return self.entropy_coef > 0

    @property
    def needs_zero_advantages(self) -> bool:
        return self.kl_coef > 0 or self.entropy_coef > 0 or self.nll_coef > 0

    @property
    def needs_chosen(self) -> bool:
        return self.nll_coef > 0

    def __call__(self, policy: TokenScores, batch: TrainBatch) -> LossOutput:
        ratio, clamped = bounded_exp(log_ratio(policy, batch))
        advantages = batch.advantages[batch.sequence_index]
        terms = ratio.detach().clamp(max=self.ratio_max) * advantages * policy.logprobs
        if batch.importance_weight is not None:
            terms = batch.importance_weight * terms
        surrogate = weighted(terms, batch).sum() / max(batch.num_tokens, 1)
        penalty, more = regularisers(
            policy,
            batch,
            kl_coef=self.kl_coef,
            kl_estimator=self.kl_estimator,
            kl_reduction=self.kl_reduction,
            entropy_coef=self.entropy_coef,
            nll_coef=self.nll_coef,
        )
        # No trust region below: only what the bound cuts above counts as clipped, whatever the advantage's sign.
        metrics = ratio_metrics(
            ratio, torch.ones_like(advantages), clamped, 1.0, self.ratio_max - 1, batch.token_weight
        )
        return LossOutput(loss=-surrogate + penalty, metrics=metrics | more)
