"""generate() with our draws; its equality with the native sampler is tested there."""

from __future__ import annotations

import torch

from pggrpo_cli.packing import pack
from pggrpo_cli.policy import Policy
from pggrpo_cli.sampler.hf_generate import HfGenerate
from pggrpo_cli.types import DrawKey, RunContext
from tests.conftest import random_prompts

DRAWS = DrawKey(seed=1, purpose="rollout", step=1)
SAMPLER = HfGenerate(group_size=6, max_new_tokens=25, temperature=0.9, top_p=0.95, top_k=0, min_p=0.0, stop=[])


def test_logprobs_are_the_teacher_forced_ones_and_ends_are_found(policy: Policy, context: RunContext) -> None:
    policy.module.generation_config.eos_token_id = list(range(0, 256, 20))
    policy.module.generation_config.repetition_penalty = 1.3  # a published model may bring it; the trainer has none
    policy.module.generation_config.suppress_tokens = [1, 2, 3]
    prompts = random_prompts([5, 9])
    with SAMPLER.open(context) as sampler:
        groups = sampler.sample(policy, prompts, DRAWS)
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    assert {rollout.finish_reason for rollout in rollouts} == {"stop", "length"}
    for rollout in rollouts:
        ends = [token in policy.end_token_ids for token in rollout.completion_ids.tolist()]
        assert not any(ends[:-1])
        assert ends[-1] == (rollout.finish_reason == "stop")
    completions = [[rollout.completion_ids for rollout in group.rollouts] for group in groups]
    with torch.no_grad():
        scores = policy.score(pack([p.token_ids for p in prompts], completions), 0.9, with_entropy=False)
    captured = torch.cat([rollout.logprobs for rollout in rollouts])
    assert (captured - scores.logprobs).abs().max() < 1e-4
