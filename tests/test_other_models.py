"""Models that differ from Llama in something: whichever way they run, numbers are those of the model itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from pggrpo_cli.model.tiny import byte_tokenizer
from pggrpo_cli.packing import pack
from pggrpo_cli.policy import Policy
from pggrpo_cli.types import RunContext
from tests.conftest import random_prompts
from tests.sampler.test_native import NATIVE, generated_greedily, sample

SHARED: dict[str, Any] = {
    "vocab_size": 260, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "initializer_range": 0.3,
    "bos_token_id": None, "eos_token_id": 256, "pad_token_id": 256,
}  # fmt: skip
MODELS: dict[str, tuple[str, dict[str, Any], bool]] = {
    "soft caps and no sdpa": ("gemma2", {"head_dim": 8, "sliding_window": 8, "query_pre_attn_scalar": 8}, True),
    "logits divided": ("granite", {"logits_scaling": 4.0}, True),
    "logits multiplied": ("cohere", {"logit_scale": 0.25}, True),
    "bias in the head": ("phi", {"num_key_value_heads": 4, "tie_word_embeddings": False}, True),
    "absolute positions": ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "n_inner": 64}, True),
    "values of another size": (
        "deepseek_v3",
        {"num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8,
         "v_head_dim": 6, "first_k_dense_replace": 2, "n_routed_experts": 2, "n_group": 1, "topk_group": 1,
         "num_experts_per_tok": 1, "n_shared_experts": 1, "moe_intermediate_size": 16},
        True,
    ),
    "attention sinks": ("gpt_oss", {"head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1}, False),
}  # fmt: skip


@pytest.fixture(scope="module", params=MODELS)
def policy(request: pytest.FixtureRequest) -> Policy:
    kind, options, packable = MODELS[request.param]
    torch.manual_seed(0)
    module = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**SHARED, **options}), dtype=torch.float32)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    policy = Policy(module, byte_tokenizer(), torch.float32)
    assert policy.packable == packable, policy.packable_reason
    return policy


def test_scores_are_the_models_own(policy: Policy) -> None:
    prompts, completions = [[5, 9, 3, 77], [8]], [[torch.tensor([4, 7, 1]), torch.tensor([9])], [torch.tensor([2, 6])]]
    scores = policy.score(pack(prompts, completions), 0.7, with_entropy=True)
    expected, entropies = [], []
    with torch.no_grad(), policy.plain_attention():
        for prompt, members in zip(prompts, completions, strict=True):
            for member in members:
                ids = torch.tensor([[*prompt, *member.tolist()]])
                table = (policy.module(ids).logits[0, len(prompt) - 1 : -1] / 0.7).log_softmax(-1)
                expected.append(table.gather(1, member[:, None]).squeeze(1))
                entropies.append(-(table.exp() * table).sum(-1))
    assert torch.allclose(scores.logprobs, torch.cat(expected), atol=1e-5)
    assert scores.entropies is not None
    assert torch.allclose(scores.entropies, torch.cat(entropies), atol=1e-5)


def test_gradients_are_the_models_own(policy: Policy) -> None:
    prompts, completions = [[5, 9, 3, 77]], [[torch.tensor([4, 7, 1])]]
    policy.module.zero_grad()
    policy.score(pack(prompts, completions), 1.0, with_entropy=False).logprobs.sum().backward()
    found = [None if p.grad is None else p.grad.clone() for p in policy.module.parameters()]
    policy.module.zero_grad()
    with policy.plain_attention():
        table = policy.module(torch.tensor([[5, 9, 3, 77, 4, 7, 1]])).logits[0, 3:-1].log_softmax(-1)
        table.gather(1, torch.tensor([[4], [7], [1]])).sum().backward()
    for one, parameter in zip(found, policy.module.parameters(), strict=True):
        if parameter.grad is not None and one is not None:
            assert torch.allclose(one, parameter.grad, atol=2e-4, rtol=1e-3)


def test_sampling_agrees_with_scoring_and_with_generate(policy: Policy, context: RunContext) -> None:
    prompts = random_prompts([5, 2])
    for prompt, group in zip(
        prompts, sample(replace(NATIVE, group_size=1, temperature=0.0), policy, prompts, context), strict=True
    ):
        assert group.rollouts[0].completion_ids.tolist() == generated_greedily(policy, prompt, 12)
    groups = sample(NATIVE, policy, prompts, context)
    completions = [[rollout.completion_ids for rollout in group.rollouts] for group in groups]
    scores = policy.score(pack([prompt.token_ids for prompt in prompts], completions), 1.0, with_entropy=False)
    captured = torch.cat([rollout.logprobs for group in groups for rollout in group.rollouts])
    assert (scores.logprobs - captured).abs().max() < 1e-4
