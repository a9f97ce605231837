"""The reward of held-out prompts, sampled greedily or at a temperature of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pggrpo_cli.metrics import mean, values
from pggrpo_cli.policy import Policy
from pggrpo_cli.protocols import OpenSampler
from pggrpo_cli.rollouts import divided, part_metrics, samples_of, scored_meanwhile
from pggrpo_cli.scoring.scorer import Scorer
from pggrpo_cli.types import DrawKey, Prompt, ScoredGroup


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """Everything an evaluation needs; it draws with a key of its own, so evaluating changes no training."""

    prompts: Sequence[Prompt]
    sampler: OpenSampler
    scorer: Scorer
    seed: int

    def run(self, policy: Policy, step: int) -> tuple[dict[str, float], list[ScoredGroup]]:
        """(eval/reward, eval/rewards/<name>/mean, eval/completions/mean_length and clipped_ratio, of a
        mixture eval/sources/<name>/reward; what was sampled)."""
        draws, scoring = DrawKey(seed=self.seed, purpose="evaluation", step=step), self.scorer.begin()
        groups = self.sampler.sample(policy, self.prompts, draws, scored_meanwhile(scoring, step))
        scored = scoring.finish(samples_of(groups, step))
        rewards = [reward for reward in scored.rewards if reward == reward]
        rollouts = [rollout for group in groups for rollout in group.rollouts]
        lengths = [rollout.completion_ids.shape[0] for rollout in rollouts]
        metrics = {
            "eval/reward": mean(sum(rewards), len(rewards)),
            "eval/completions/mean_length": mean(sum(lengths), len(lengths)),
            "eval/completions/clipped_ratio": mean(
                sum(rollout.finish_reason == "length" for rollout in rollouts), len(rollouts)
            ),
        }
        for name, scores in scored.terms.items():
            applied = [score for score in scores if score is not None]
            if applied:
                metrics[f"eval/rewards/{name}/mean"] = mean(sum(applied), len(applied))
        result = divided(groups, scored, [math.nan] * len(rollouts))  # no advantages here
        metrics |= {f"eval/{name}": one for name, one in part_metrics(result).items() if name.endswith("/reward")}
        return values(metrics), result
