"""loss=pg_grpo: GRPO with DPO's preference ratio."""

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
class PgGrpo:
    """Minimises −(1/N) Σ_i min( p_i A_i , clip(p_i, 1 − clip_low, 1 + clip_high) A_i ) + kl_coef · KL(π_θ‖π_orig), with
    the preference ratio of the whole completion

        p_i = exp( β ( log π_θ(y_i|x) − log π_old(y_i|x) ) ),        β / |y_i| in place of β if length_normalized.

    It is exp of DPO's implicit reward (Rafailov et al. 2023) with π_old in the part of π_ref. β = 1 is GRPO with the
    ratio of the completion; length_normalized with β = 1 is GSPO's ratio.

    N counts the completions of the optimizer step. The clip binds where β·Δ leaves [ln(1 − clip_low), ln(1 + clip_high)]:
    above only for A > 0, below only for A < 0; so β sets the width of the trust region. β·Δ is clamped to ±20 before
    exp; beyond it the gradient is zero, and ratio/clamped_fraction says how often.

    On the first update p_i = 1 and the gradient is β A_i ∇ log π_θ(y_i|x). gradient_scale: "faithful" leaves that β;
    "inverse_beta" divides the surrogate by β, so that β changes neither the step (SGD) nor the surrogate's weight against
    the KL and max_grad_norm (Adam). ratio_max: the dual clip for A < 0, null is off. The KL is to π_orig, never to π_old.
    nll_coef adds that times the likelihood of chosen completions, see objective.nll_of_step.
    """

    beta: Annotated[float, Range(gt=0)]
    length_normalized: bool
    clip_low: Annotated[float, Range(gt=0, lt=1)]
    clip_high: Annotated[float, Range(gt=0)]
    ratio_max: Annotated[float | None, Range(gt=1)]
    gradient_scale: Literal["faithful", "inverse_beta"]
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
        delta = sum_by_sequence(log_ratio(policy, batch), batch)
        beta = self.beta / batch.lengths.clamp_min(1) if self.length_normalized else self.beta
        preference_ratio, clamped = bounded_exp(beta * delta)
        surrogate = clipped_surrogate(preference_ratio, batch.advantages, self.clip_low, self.clip_high, self.ratio_max)
        if self.gradient_scale == "inverse_beta":
            surrogate = surrogate / self.beta
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
        metrics = ratio_metrics(preference_ratio, batch.advantages, clamped, self.clip_low, self.clip_high)
        return LossOutput(loss=-surrogate.sum() / batch.num_sequences + penalty, metrics=metrics | more)
