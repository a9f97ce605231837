"""The pieces that objectives share: sums over a completion, the clipped surrogate, the KL to π_orig, the entropy
bonus, the likelihood of chosen completions.

Shapes: T completion tokens, B completions. Every function divides by totals of the whole optimizer step, so the shares
of micro-batches add up to the value of the full batch.
"""

from __future__ import annotations

import torch

from pggrpo_cli.metrics import Metric, maximum, mean
from pggrpo_cli.types import TokenScores, TrainBatch

MAX_LOG_RATIO = 20.0
"""Log-ratios are clamped to ±this before exp: e²⁰ ≈ 5·10⁸. Beyond it the gradient is zero."""


def weighted(values: torch.Tensor, batch: TrainBatch) -> torch.Tensor:
    """values [T] with those of context tokens (token_weight 0) zeroed."""
    return values if batch.token_weight is None else values * batch.token_weight


def sum_by_sequence(values: torch.Tensor, batch: TrainBatch) -> torch.Tensor:
    """[T] → [B]: the sum over each completion's trained tokens, in float32 or wider."""
    values = weighted(values, batch)
    wide = values.to(torch.promote_types(values.dtype, torch.float32))
    return wide.new_zeros(batch.lengths.shape[0]).index_add(0, batch.sequence_index, wide)


def log_ratio(policy: TokenScores, batch: TrainBatch) -> torch.Tensor:
    """[T] log π_θ − log π_old. Raises ValueError if the batch has no old log-probabilities."""
    if batch.old_logprobs is None:
        raise ValueError("this loss needs old_logprobs")
    return policy.logprobs - batch.old_logprobs


def bounded_exp(exponent: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(exp of the exponent clamped to ±MAX_LOG_RATIO, bool: was it clamped)."""
    return exponent.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp(), exponent.detach().abs() > MAX_LOG_RATIO


def clipped_surrogate(
    ratio: torch.Tensor,
    advantages: torch.Tensor,
    clip_low: float,
    clip_high: float,
    ratio_max: float | None = None,
) -> torch.Tensor:
    """min( ratio · A , clip(ratio, 1 − clip_low, 1 + clip_high) · A ), elementwise.

    ratio_max (dual clip, Ye et al. 2020): where A < 0 the ratio counts at most ratio_max, so that one improbable
    completion cannot dominate; None is off.
    """
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    terms = torch.minimum(ratio * advantages, clipped * advantages)
    if ratio_max is None:
        return terms
    return torch.where(advantages < 0, torch.maximum(terms, ratio_max * advantages), terms)


def ratio_metrics(
    ratio: torch.Tensor,
    advantages: torch.Tensor,
    clamped: torch.Tensor,
    clip_low: float,
    clip_high: float,
    weight: torch.Tensor | None = None,
) -> dict[str, Metric]:
    """clip_ratio/low_mean: share with ratio < 1 − clip_low and A < 0; high_mean: > 1 + clip_high and A > 0; region_mean:
    either. ratio/max and ratio/clamped_fraction. Over completions or tokens, as the ratio is; `weight` 0 leaves out."""
    ratio, advantages = ratio.detach(), advantages.detach()
    counted = torch.ones_like(ratio) if weight is None else weight.to(ratio.dtype)
    number = counted.sum()
    low = ((ratio < 1 - clip_low) & (advantages < 0)).to(ratio.dtype) * counted
    high = ((ratio > 1 + clip_high) & (advantages > 0)).to(ratio.dtype) * counted
    metrics = {
        "clip_ratio/low_mean": mean(low.sum(), number),
        "clip_ratio/high_mean": mean(high.sum(), number),
        "clip_ratio/region_mean": mean((low + high).sum(), number),
        "ratio/clamped_fraction": mean((clamped.to(ratio.dtype) * counted).sum(), number),
    }
    if ratio.numel():
        metrics["ratio/max"] = maximum((ratio * (counted > 0)).max())
    return metrics


def kl_to_reference(
    policy: TokenScores, batch: TrainBatch, estimator: str, reduction: str
) -> tuple[torch.Tensor, dict[str, Metric]]:
    """KL(π_θ‖π_orig) of this micro-batch's tokens, as its share of the step: (0-d, {"kl": mean per token}).

    d = log π_orig − log π_θ per token (Schulman, "Approximating KL divergence", 2020):
    k1 = −d            unbiased value; gradient ∇ log π_θ, whose mean is 0: as a penalty it only adds noise
    k2 = d²/2          biased value; its gradient is that of the reverse KL on samples of π_θ
    k3 = e^d − d − 1   unbiased and never negative; gradient (1 − e^d) ∇ log π_θ. d is clamped to ±MAX_LOG_RATIO.
    token_mean divides the sum over all tokens by the step's tokens, sequence_sum by its completions.
    """
    if batch.ref_logprobs is None:
        raise ValueError("this loss needs ref_logprobs")
    difference = batch.ref_logprobs - policy.logprobs
    if estimator == "k1":
        terms = -difference
    elif estimator == "k2":
        terms = difference.square() / 2
    else:
        bounded = difference.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
        terms = bounded.exp() - bounded - 1
    total = weighted(terms, batch).sum()
    divisor = batch.num_tokens if reduction == "token_mean" else batch.num_sequences
    return total / max(divisor, 1), {"kl": mean(total.detach(), batch.lengths.sum())}


def entropy_of_step(policy: TokenScores, batch: TrainBatch) -> tuple[torch.Tensor, dict[str, Metric]]:
    """(this micro-batch's share of the step's mean token entropy, {"entropy": …}); (0, {}) without entropies."""
    if policy.entropies is None:
        return policy.logprobs.new_zeros(()), {}
    total = weighted(policy.entropies, batch).sum()
    return total / max(batch.num_tokens, 1), {"entropy": mean(total.detach(), batch.lengths.sum())}


def nll_of_step(policy: TokenScores, batch: TrainBatch) -> tuple[torch.Tensor, dict[str, Metric]]:
    """(this micro-batch's share of the mean over the step's chosen completions c of −(1/|c|) Σ_t log π_θ(c_t|·),
    {"nll": …}); (0, {}) if the step has none.

    Each chosen completion weighs the same, whatever its length, as in Pang et al. 2024 (arXiv 2404.19733); a batch of
    sampled completions has no chosen ones. Of softmax(logits / temperature), as all log-probabilities here.
    """
    if batch.chosen is None or not batch.num_chosen:
        return policy.logprobs.new_zeros(()), {}
    per_token = -sum_by_sequence(policy.logprobs, batch) / batch.lengths.clamp_min(1)
    total = per_token[batch.chosen].sum()
    return total / batch.num_chosen, {"nll": mean(total.detach(), batch.chosen.sum())}


def regularisers(
    policy: TokenScores,
    batch: TrainBatch,
    *,
    kl_coef: float,
    kl_estimator: str,
    kl_reduction: str,
    entropy_coef: float,
    nll_coef: float,
) -> tuple[torch.Tensor, dict[str, Metric]]:
    """kl_coef · KL − entropy_coef · entropy + nll_coef · NLL, to be added to a loss that is minimised, with their
    metrics. The NLL is that of the chosen completions which the data set brings."""
    entropy, metrics = entropy_of_step(policy, batch)
    nll, nll_metrics = nll_of_step(policy, batch)
    metrics |= nll_metrics
    penalty = policy.logprobs.new_zeros(())
    if entropy_coef:
        penalty = penalty - entropy_coef * entropy
    if nll_coef:
        penalty = penalty + nll_coef * nll
    if kl_coef:
        kl, kl_metrics = kl_to_reference(policy, batch, kl_estimator, kl_reduction)
        penalty = penalty + kl_coef * kl
        metrics |= kl_metrics
    return penalty, metrics


def sequence_importance(batch: TrainBatch) -> torch.Tensor | None:
    """[B] the mean of importance_weight over each completion's trained tokens: for surrogates of whole completions."""
    if batch.importance_weight is None:
        return None
    return sum_by_sequence(batch.importance_weight, batch) / batch.lengths.clamp_min(1)
