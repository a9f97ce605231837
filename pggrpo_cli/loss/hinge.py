"""loss=hinge: the margin of DPO's implicit rewards, up to 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pggrpo_cli.objective import entropy_of_step
from pggrpo_cli.preference import implicit_rewards
from pggrpo_cli.ranges import Range
from pggrpo_cli.types import LossOutput, TokenScores, TrainBatch


@dataclass(frozen=True, kw_only=True)
class Hinge:
    """SLiC-HF's calibration loss on DPO's implicit rewards (Zhao et al. 2023, arXiv 2305.10425; as in RSO, Liu et al.
    2023): minimises the mean over the step's pairs of max(0, 1 − h), h as in loss=dpo.
    """

    beta: Annotated[float, Range(gt=0)]
    length_normalized: bool

    needs_reference = True
    needs_old_logprobs = False
    needs_pairs = True
    needs_entropy = False
    needs_advantages = False
    needs_zero_advantages = True

    def __call__(self, policy: TokenScores, batch: TrainBatch) -> LossOutput:
        rewards = implicit_rewards(policy, batch, self.beta, length_normalized=self.length_normalized)
        losses = (1 - rewards.margins).clamp_min(0)
        loss = losses.sum() / max(batch.num_pairs, 1)
        return LossOutput(loss=loss, metrics=rewards.metrics() | entropy_of_step(policy, batch)[1])
