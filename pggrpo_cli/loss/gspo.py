"""loss=gspo: Group Sequence Policy Optimization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pggrpo_cli.objective import (
    bounded_exp,
    clipped_surrogate,
    log_ratio,
    ratio_metrics,
    regularisers,
    sequence_importance,
    sum_by_sequence,
)
from pggrpo_cli.ranges import Range
from pggrpo_cli.types import LossOutput, TokenScores, TrainBatch


@dataclass(frozen=True, kw_only=True)
class Gspo:
    """Zheng et al. 2025 (arXiv 2507.18071): GRPO's clipped objective with the length-normalised ratio of the completion

        s_i = ( π_θ(y_i|x) / π_old(y_i|x) )^(1/|y_i|),

    minimising −(1/N) Σ_i min( s_i A_i , clip(s_i, 1 − clip_low, 1 + clip_high) A_i ) + kl_coef · KL(π_θ‖π_orig). The
    paper uses no KL, clips 3e-4 and 4e-4, and advantage=group_normalized. TRL calls it importance_sampling_level:
    sequence.
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
        delta = sum_by_sequence(log_ratio(policy, batch), batch) / batch.lengths.clamp_min(1)
        ratio, clamped = bounded_exp(delta)
        surrogate = clipped_surrogate(ratio, batch.advantages, self.clip_low, self.clip_high, self.ratio_max)
        importance = sequence_importance(batch)
        if importance is not None:
            surrogate = importance * surrogate
        penalty, more = regularisers(
            policy,
            batch,
            kl_coef=self.kl_coef,
            kl_estimator=self.kl_estimator,
            kl_reduction=self.kl_reduction,
            entropy_coef=self.entropy_coef,
            nll_coef=self.nll_coef,
        )
        metrics = ratio_metrics(ratio, batch.advantages, clamped, self.clip_low, self.clip_high)
        return LossOutput(loss=-surrogate.sum() / batch.num_sequences + penalty, metrics=metrics | more)
