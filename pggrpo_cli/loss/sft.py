"""loss=sft: the likelihood of completions, offline or sampled."""

from __future__ import annotations

from dataclasses import dataclass

from pggrpo_cli.objective import entropy_of_step, weighted
from pggrpo_cli.types import LossOutput, TokenScores, TrainBatch


@dataclass(frozen=True, kw_only=True)
class Sft:
    """Minimises −log π_θ(y|x), averaged over all completion tokens of the optimizer step."""

    @property
    def needs_reference(self) -> bool:
        return False

    @property
    def needs_old_logprobs(self) -> bool:
        return False

    @property
    def needs_pairs(self) -> bool:
        return False

    @property
    def needs_entropy(self) -> bool:
        return False

    @property
    def needs_advantages(self) -> bool:
        return False

    @property
    def needs_zero_advantages(self) -> bool:
        return True

    def __call__(self, policy: TokenScores, batch: TrainBatch) -> LossOutput:
        loss = -weighted(policy.logprobs, batch).sum() / max(batch.num_tokens, 1)
        return LossOutput(loss=loss, metrics=entropy_of_step(policy, batch)[1])
