"""loss=grpo_token: GRPO with a ratio for each token, as DeepSeekMath, TRL and verl mean it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pggrpo_cli.objective import (
    bounded_exp,
    clipped_surrogate,
    log_ratio,
    ratio_metrics,
    regularisers,
    sum_by_sequence,
)
from pggrpo_cli.ranges import Range
from pggrpo_cli.types import LossOutput, TokenScores, TrainBatch


@dataclass(frozen=True, kw_only=True)
class GrpoToken:
    """Shao et al. 2024 (DeepSeekMath, arXiv 2402.03300), equation 3, minimised:

        −(1/N) Σ_i (1/|y_i|) Σ_t min( r_it A_i , clip(r_it, 1 − clip_low, 1 + clip_high) A_i ) + kl_coef · KL(π_θ‖π_orig),

    r_it = π_θ(y_it|·) / π_old(y_it|·). The paper uses kl_coef 0.04, k3, and advantage=group_normalized. With
    kl_reduction=token_mean the KL is averaged over all tokens of the step; the paper's (and TRL's) averages within each
    completion first. log r_it is clamped to ±20 before exp.
    nll_coef adds that times the likelihood of chosen completions, see objective.nll_of_step.
    """

    clip_low: Annotated[float, Range(gt=0, lt=1)]
    clip_high: Annotated[float, Range(gt=0)]
    ratio_max: Annotated[float | None, Range(gt=1)]
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
        terms = clipped_surrogate(ratio, advantages, self.clip_low, self.clip_high, self.ratio_max)
        if batch.importance_weight is not None:
            terms = batch.importance_weight * terms
        surrogate = (sum_by_sequence(terms, batch) / batch.lengths.clamp_min(1)).sum() / batch.num_sequences
        penalty, more = regularisers(
            policy,
            batch,
            kl_coef=self.kl_coef,
            kl_estimator=self.kl_estimator,
            kl_reduction=self.kl_reduction,
            entropy_coef=self.entropy_coef,
            nll_coef=self.nll_coef,
        )
        metrics = ratio_metrics(ratio, advantages, clamped, self.clip_low, self.clip_high, batch.token_weight)
        return LossOutput(loss=-surrogate + penalty, metrics=metrics | more)
