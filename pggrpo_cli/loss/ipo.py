"""loss=ipo: Identity Preference Optimization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pggrpo_cli.objective import entropy_of_step
from pggrpo_cli.preference import implicit_rewards
from pggrpo_cli.ranges import Range
from pggrpo_cli.types import LossOutput, TokenScores, TrainBatch


@dataclass(frozen=True, kw_only=True)
class Ipo:
    """Azar et al. 2023 (arXiv 2310.12036), equation 17: minimises the mean over the step's pairs of (g − 1/(2β))², with

        g = log[π_θ(y_w|x)/π_ref(y_w|x)] − log[π_θ(y_l|x)/π_ref(y_l|x)].

    The paper's log-ratios are sums over the completion; TRL's are means over its tokens: length_normalized.
    The logged rewards are β times the log-ratios.
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
        losses = (rewards.margins / self.beta - 1 / (2 * self.beta)).square()
        loss = losses.sum() / max(batch.num_pairs, 1)
        return LossOutput(loss=loss, metrics=rewards.metrics() | entropy_of_step(policy, batch)[1])
