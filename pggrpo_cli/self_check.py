"""Step 0: do sampler and trainer agree? If their log-probabilities differ, every ratio is wrong and nothing says so."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pggrpo_cli.config import SelfCheckSettings
from pggrpo_cli.errors import ConfigError
from pggrpo_cli.packing import pack
from pggrpo_cli.policy import Policy
from pggrpo_cli.protocols import OpenSampler
from pggrpo_cli.types import DrawKey, Prompt

PROMPTS = 2


def check_policy(
    policy: Policy,
    sampler: OpenSampler,
    prompts: Sequence[Prompt],
    temperature: float,
    seed: int,
    settings: SelfCheckSettings,
) -> str:
    """Samples a few completions and scores them as the trainer does. One line on what was found.

    Checked: each token's log-probability, sampled against teacher-forced (largest difference in float32, mean in
    bfloat16); scoring twice gives the same bits, so that the first ratio is 1; at most one BOS a prompt.
    Raises ConfigError if one fails.
    """
    bos = policy.tokenizer.bos_token_id
    for prompt in prompts[:PROMPTS]:
        leading = 0
        while leading < len(prompt.token_ids) and prompt.token_ids[leading] == bos:
            leading += 1
        if leading > 1:
            raise ConfigError(
                f"`model.chat_template`: the prompt starts with {leading} BOS tokens ({policy.tokenizer.bos_token!r}); "
                "one at most is right. The template and the tokenizer both add it: take it out of the template."
            )
    groups = sampler.sample(policy, prompts[:PROMPTS], DrawKey(seed=seed, purpose="self_check", step=0))
    packed = pack(
        [group.prompt.token_ids for group in groups],
        [[rollout.completion_ids for rollout in group.rollouts] for group in groups],
    ).to(policy.device)
    with torch.no_grad():
        first = policy.score(packed, temperature, with_entropy=False).logprobs
        second = policy.score(packed, temperature, with_entropy=False).logprobs
    if not torch.equal(first, second):
        raise ConfigError(
            "`self_check`: the model gives other log-probabilities when asked twice (dropout in training mode, or a "
            "kernel that is not deterministic), so the first ratio would not be 1. Set its dropout to 0, or "
            "self_check.enabled=false to go on."
        )
    sampled = [rollout.logprobs for group in groups for rollout in group.rollouts if rollout.logprobs is not None]
    if len(sampled) != sum(len(group.rollouts) for group in groups):
        return f"ratio 1 on {packed.targets.shape[0]} tokens of the data set"
    difference = (torch.cat(sampled).to(first.device) - first).abs()
    exact = policy.compute_dtype in (torch.float32, torch.float64)
    found = float(difference.max() if exact else difference.mean())
    key, allowed = (
        ("self_check.float32_tolerance", settings.float32_tolerance)
        if exact
        else ("self_check.bfloat16_tolerance", settings.bfloat16_tolerance)
    )
    kind = "largest" if exact else "mean"
    if not found <= allowed:
        raise ConfigError(
            f"`{key}`: the {kind} difference between the sampler's and the trainer's log-probabilities is {found:.3g}, "
            f"allowed is {allowed:.3g}. Sampler and trainer do not run the same model; try sampler=hf_generate, "
            "and report this."
        )
    return (
        f"sampler and trainer agree on {difference.numel()} tokens: {kind} difference {found:.1e} "
        f"(allowed {allowed:.0e}), ratio 1"
    )
