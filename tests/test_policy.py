"""Packed against separate sequences: log-probabilities, entropies and gradients of the same model, plainly run."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch

from pggrpo_cli.packed_attention import PackedPlan
from pggrpo_cli.packing import pack
from pggrpo_cli.policy import Policy
from tests.conftest import FAMILIES, tiny_policy

PROMPTS = [[5, 9, 3, 77, 41, 2, 8, 100, 11, 12, 13], [7, 2], [42]]
LENGTHS = [[4, 1, 14, 9], [3, 3], [1]]
TEMPERATURE = 0.7


def completions(seed: int = 0) -> list[list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [[torch.randint(0, 256, (n,), generator=generator) for n in group] for group in LENGTHS]


def plainly(policy: Policy, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities and entropies [T] from one ordinary forward a sequence, whole logits, torch's log_softmax."""
    logprobs, entropies = [], []
    with policy.plain_attention():
        for prompt, members in zip(PROMPTS, completions(), strict=True):
            for member in members:
                ids = torch.cat([torch.tensor(prompt), member])
                logits = policy.module(input_ids=ids[None], use_cache=False).logits[0, len(prompt) - 1 : -1]
                table = (logits / temperature).log_softmax(-1)
                logprobs.append(table.gather(1, member[:, None]).squeeze(1))
                entropies.append(-(table.exp() * table).sum(-1))
    return torch.cat(logprobs), torch.cat(entropies)


def objective(logprobs: torch.Tensor, entropies: torch.Tensor) -> torch.Tensor:
    weights = torch.linspace(-1, 1, logprobs.shape[0], dtype=logprobs.dtype)
    return (weights * logprobs).sum() + (weights.flip(0) * entropies).sum()


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_scores_and_gradients_are_those_of_separate_sequences(family: str) -> None:
    policy = tiny_policy(family, dtype=torch.float64)
    assert policy.packable
    expected, expected_entropies = plainly(policy, TEMPERATURE)
    objective(expected, expected_entropies).backward()
    reference = {name: parameter.grad.clone() for name, parameter in policy.module.named_parameters()}
    policy.module.zero_grad()
    scores = policy.score(pack(PROMPTS, completions()), TEMPERATURE, with_entropy=True)
    assert scores.entropies is not None
    # transformers' norms and rotations run in float32 inside a float64 model
    assert torch.allclose(scores.logprobs, expected, atol=1e-5)
    assert torch.allclose(scores.entropies, expected_entropies, atol=1e-5)
    objective(scores.logprobs, scores.entropies).backward()
    for name, parameter in policy.module.named_parameters():
        scale = reference[name].abs().max().clamp_min(1e-3)
        assert (parameter.grad - reference[name]).abs().max() < 1e-4 * scale, name
    assert sum(float(grad.abs().sum()) for grad in reference.values()) > 1


def test_a_model_that_cannot_run_packed_gives_the_same_scores() -> None:
    policy = tiny_policy()
    packed = pack(PROMPTS, completions())
    expected = policy.score(packed, TEMPERATURE, with_entropy=True)
    policy.packable_reason = "for the test"
    policy.module.set_attn_implementation("sdpa")
    scores = policy.score(packed, TEMPERATURE, with_entropy=True)
    assert torch.allclose(scores.logprobs, expected.logprobs, atol=1e-5)


def test_sequence_by_sequence_the_cast_weights_are_kept_once(
    random_completions: Callable[..., list[torch.Tensor]],
) -> None:
    """bfloat16 over float32 weights: the graph of each sequence needs the cast weights; of SmolLM2 they are 270 MB."""
    policy = tiny_policy(dtype=torch.bfloat16)
    policy.packable_reason = "for the test"
    policy.module.set_attn_implementation("sdpa")
    shapes = {parameter.shape for parameter in policy.module.parameters() if parameter.dim() == 2}

    def cast_weights(count: int) -> int:
        kept: set[int] = set()

        def note(tensor: torch.Tensor) -> torch.Tensor:
            if (
                tensor.dtype == torch.bfloat16
                and {tensor.shape, tensor.T.shape if tensor.dim() == 2 else None} & shapes
            ):
                kept.add(tensor.untyped_storage().data_ptr())
            return tensor

        packed = pack([[1, 2, 3]], [random_completions([5] * count)])
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            scores = policy.score(packed, 1.0, with_entropy=False)
        scores.logprobs.sum().backward()
        return len(kept)

    assert 0 < cast_weights(6) == cast_weights(1)


def test_gradient_checkpointing_computes_layers_again_and_changes_no_gradient() -> None:
    gradients, forwards, kept = [], [], []
    attend = PackedPlan.attend
    for checkpointing in (False, True):
        base = tiny_policy()
        policy = Policy(base.module, base.tokenizer, torch.float32, gradient_checkpointing=checkpointing)
        calls: list[Any] = []
        policy.module.model.layers[0].mlp.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        queries: list[weakref.ref[torch.Tensor]] = []

        def noted(self: Any, heads: Any, queries: list[Any] = queries) -> torch.Tensor:
            queries.append(weakref.ref(heads.query))
            return attend(self, heads)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(PackedPlan, "attend", noted)
            scores = policy.score(pack(PROMPTS, completions()), 1.0, with_entropy=False)
            kept.append(sum(query() is not None for query in queries))
            scores.logprobs.sum().backward()
        gradients.append([parameter.grad for parameter in policy.module.parameters()])
        forwards.append(len(calls))
    assert forwards == [1, 2]
    assert kept[1] == 0  # nothing of a checkpointed layer stays alive until its backward
    for plain, recomputed in zip(*gradients, strict=True):
        assert torch.equal(plain, recomputed)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_nothing_is_dropped_out(checkpointing: bool) -> None:
    base = tiny_policy()
    expected = base.score(pack(PROMPTS, completions()), 1.0, with_entropy=False).logprobs
    for layer in base.module.modules():
        if hasattr(layer, "attention_dropout"):
            layer.attention_dropout = 0.9
    policy = Policy(base.module, base.tokenizer, torch.float32, gradient_checkpointing=checkpointing)
    policy.packable_reason = "transformers' own attention drops out, ours never does"
    policy.module.set_attn_implementation("sdpa")
    found = policy.score(pack(PROMPTS, completions()), 1.0, with_entropy=False).logprobs
    assert torch.allclose(found, expected, atol=1e-5)


def test_a_model_with_other_logits_is_found_out_and_scored_rightly() -> None:
    base = tiny_policy()
    head = base.module.get_output_embeddings()
    original = head.forward
    head.forward = lambda hidden: original(hidden) * 2  # a scale that the packed path knows nothing of
    policy = Policy(base.module, base.tokenizer, torch.float32)
    assert not policy.packable
    assert "differ" in str(policy.packable_reason)
    found = policy.score(pack([PROMPTS[0]], [completions()[0][:1]]), 1.0, with_entropy=False).logprobs
    ids = torch.tensor([*PROMPTS[0], *completions()[0][0].tolist()])
    table = policy.module(ids[None]).logits[0, len(PROMPTS[0]) - 1 : -1].log_softmax(-1)
    assert torch.allclose(found, table.gather(1, completions()[0][0][:, None]).squeeze(1), atol=1e-6)


def test_end_token_ids_come_from_generation_config_and_tokenizer() -> None:
    policy = tiny_policy()
    own = policy.tokenizer.eos_token_id
    assert policy.end_token_ids == (own,)
    policy.module.generation_config.eos_token_id = [7, 3]
    assert policy.end_token_ids == (3, 7, own)
    policy.module.generation_config.eos_token_id = None
    assert policy.end_token_ids == (own,)


def test_bfloat16_computes_in_bfloat16_over_float32_weights() -> None:
    policy = tiny_policy(dtype=torch.float32)
    low = Policy(tiny_policy().module, policy.tokenizer, torch.bfloat16)
    packed = pack(PROMPTS, completions())
    difference = (
        low.score(packed, 1.0, with_entropy=False).logprobs - policy.score(packed, 1.0, with_entropy=False).logprobs
    ).abs()
    assert 1e-5 < difference.mean() < 0.1
    low.score(packed, 1.0, with_entropy=False).logprobs.sum().backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in low.module.parameters())
