"""loss=sft: the likelihood of completions, offline or sampled."""

from __future__ import annotations

from dataclasses import dataclass

from pggrpo_cli.objective import entropy_of_step, weighted
from pggrpo_cli.types import LossOutput, TokenScores, TrainBatch


@dataclass(frozen=True, kw_only=True)
class Sft:
    """Minimises −log π_θ(y|x), averaged over all completion tokens of the optimizer step."""

    needs_reference = False
    needs_old_logprobs = False
    needs_pairs = False
    needs_entropy = False
    needs_advantages = False
    needs_zero_advantages = True

    def __call__(self, policy: TokenScores, batch: TrainBatch) -> LossOutput:
        loss = -weighted(policy.logprobs, batch).sum() / max(batch.num_tokens, 1)
        return LossOutput(loss=loss, metrics=entropy_of_step(policy, batch)[1])
