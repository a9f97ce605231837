"""A decoder layer as one step of the graph against the same of torch, through a policy; and when it is left to torch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from pggrpo_cli.compiled import layers, update
from pggrpo_cli.packing import pack
from pggrpo_cli.policy import Policy
from pggrpo_cli.reference import frozen_copy
from tests.compiled.test_head import CPU, needs_library
from tests.conftest import tiny_model, tiny_policy

Scores = tuple[torch.Tensor, dict[str, torch.Tensor]]


def packed() -> Any:
    generator = torch.Generator().manual_seed(2)
    completions = [torch.randint(0, 200, (length,), generator=generator) for length in (1, 5, 9, 30)]
    return pack([[3], [5, 9, 2]], [completions[:1], completions[1:]])


def policy_of(dtype: torch.dtype, *, family: str = "llama", checkpointing: bool = False) -> Policy:
    loaded = tiny_model(family).load()
    for name, parameter in loaded.module.named_parameters():
        if "norm" in name or "bias" in name:  # ones would hide what a norm's weight does
            parameter.data = torch.linspace(0.5, 1.5, len(parameter))
        elif "embed" not in name:
            parameter.data *= 0.4  # as drawn, attention is so sharp that every rounding is amplified
    return Policy(loaded.module, loaded.tokenizer, dtype, gradient_checkpointing=checkpointing)


def scored(policy: Policy) -> Scores:
    scores = policy.score(packed(), 0.8, with_entropy=True)
    assert scores.entropies is not None
    (scores.logprobs.sum() + 0.1 * scores.entropies.sum()).backward()
    found = {name: parameter.grad for name, parameter in policy.module.named_parameters() if parameter.grad is not None}
    return scores.logprobs.detach(), found


def in_torch(policy: Policy) -> Scores:
    with update.in_torch():
        return scored(policy)


def distance(ours: Scores, theirs: Scores) -> float:
    assert ours[1].keys() == theirs[1].keys()
    pairs = [(ours[0], theirs[0]), *((ours[1][name], theirs[1][name]) for name in theirs[1])]
    return max(float((one.double() - other).norm() / other.norm()) for one, other in pairs)


@pytest.mark.parametrize("family", ["llama", "qwen2"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_float32_is_float64_to_rounding(checkpointing: bool, family: str) -> None:
    """Qwen 2 has biases."""
    needs_library(torch.float32)
    exact = policy_of(torch.float32, family=family)
    exact.module.to(torch.float64)
    exact.compute_dtype = torch.float64
    found = scored(policy_of(torch.float32, family=family, checkpointing=checkpointing))
    assert distance(found, in_torch(exact)) < 2e-5


def test_bfloat16_is_as_near_to_float32_as_torch_is() -> None:
    needs_library(torch.bfloat16)
    exact = in_torch(policy_of(torch.float32))
    ours, theirs = (
        distance(scored(policy_of(torch.bfloat16)), exact),
        distance(in_torch(policy_of(torch.bfloat16)), exact),
    )
    assert ours < 1.5 * theirs


@pytest.mark.parametrize("family", ["llama", "qwen2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_layer_is_one_step_of_the_graph(dtype: torch.dtype, family: str) -> None:
    needs_library(dtype)
    policy = policy_of(dtype, family=family)
    assert policy.uncompiled_reason is None
    assert "_LayerBackward" in names_of(policy)
    with update.in_torch():
        assert "_LayerBackward" not in names_of(policy)


def names_of(policy: Policy) -> set[str]:
    found, left = set(), [policy.score(packed(), 1.0, with_entropy=False).logprobs.grad_fn]
    while left:
        node = left.pop()
        if node is not None and node not in found:
            found.add(node)
            left += [function for function, _ in node.next_functions]
    return {type(node).__name__ for node in found}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_reference_computes_what_the_policy_does(dtype: torch.dtype) -> None:
    """Bit for bit, and from weights of its own."""
    needs_library(dtype)
    policy = policy_of(dtype)
    reference = frozen_copy(policy, dtype, CPU)
    before = policy.score(packed(), 1.0, with_entropy=False).logprobs
    with torch.no_grad():
        assert torch.equal(reference.score(packed(), 1.0, with_entropy=False).logprobs, before)
        for parameter in policy.module.parameters():
            parameter.mul_(0.5)
        assert torch.equal(reference.score(packed(), 1.0, with_entropy=False).logprobs, before)
    assert not torch.equal(policy.score(packed(), 1.0, with_entropy=False).logprobs, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_threads_do_not_matter(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    needs_library(dtype)
    found = []
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        found.append(scored(policy_of(dtype)))
    assert torch.equal(found[0][0], found[1][0])
    assert all(torch.equal(found[0][1][name], found[1][1][name]) for name in found[0][1])


def hooked(policy: Policy) -> None:
    policy.module.model.layers[0].mlp.register_forward_hook(lambda *_: None)


def replaced(policy: Policy) -> None:
    class Lora(nn.Linear):
        pass

    plain = policy.module.model.layers[0].self_attn.q_proj
    policy.module.model.layers[0].self_attn.q_proj = Lora(plain.in_features, plain.out_features, bias=False)


def patched(policy: Policy) -> None:
    norm = policy.module.model.layers[0].input_layernorm
    norm.forward = norm.forward


@pytest.mark.parametrize("change", [hooked, replaced, patched])
def test_what_somebody_puts_into_a_layer_later_is_computed(change: Callable[[Policy], None]) -> None:
    needs_library(torch.float32)
    policy = policy_of(torch.float32)
    policy.module.model.layers = policy.module.model.layers[:1]
    change(policy)
    assert "_LayerBackward" not in names_of(policy)


def scaled_residual(module: Any) -> None:
    """A forward that multiplies, as Granite's: nothing of it shows in the layer's parts."""
    plain = type(module.model.layers[0])

    class Scaled(plain):  # type: ignore[misc]
        def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            return hidden_states + 0.5 * (super().forward(hidden_states, *args, **kwargs) - hidden_states)

    for layer in module.model.layers:
        layer.__class__ = Scaled


def test_layers_that_compute_something_else_are_left_to_torch() -> None:
    needs_library(torch.float32)
    loaded = tiny_model().load()
    scaled_residual(loaded.module)
    policy = Policy(loaded.module, loaded.tokenizer, torch.float32)
    assert policy.packable
    assert "differs by" in (policy.uncompiled_reason or "")
    assert "_LayerBackward" not in names_of(policy)


def test_families_with_other_parts_are_left_to_torch() -> None:
    needs_library(torch.float32)
    for family in ("qwen3", "gemma3"):
        policy = tiny_policy(family)
        assert policy.uncompiled_reason
        assert "_LayerBackward" not in names_of(policy)


def test_a_layer_keeps_its_name_and_is_compiled_once() -> None:
    needs_library(torch.float32)
    policy = policy_of(torch.float32)
    kind = type(policy.module.model.layers[0])
    again = Policy(copy.deepcopy(policy.module), policy.tokenizer, torch.float32)
    assert type(again.module.model.layers[0]) is kind
    assert kind.__name__ == "LlamaDecoderLayer"
    assert layers._class_of(policy.module.model.layers[0]) is kind
