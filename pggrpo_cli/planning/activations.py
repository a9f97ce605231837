"""What a forward keeps for its backward, asked of the model itself: autograd says what it saves, for any architecture."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from pggrpo_cli.packed_attention import PackedPlan
from pggrpo_cli.packing import pack
from pggrpo_cli.policy import Policy

PROMPT, COMPLETION = 20, 18
"""Tokens of the forward that is asked; the completion's last is not fed."""
FED = PROMPT + COMPLETION - 1
"""A prime number, so that it is a factor of the size of a tensor that grows with the tokens, and of no weight's."""


def kept_for_backward(policy: Policy) -> tuple[int, int]:
    """(bytes a token, bytes whatever the number of tokens: weights that autocast has cast) of an update's forward, without
    the output head.

    Without gradient checkpointing, even if the policy has it. The policy may be one of shapes alone (`outline_policy`).
    """
    trains = policy.module.training
    policy.module.eval()  # where transformers does not checkpoint
    try:
        sizes = _saved(policy)
    except RuntimeError:  # a forward that looks at numbers, which an outline has not
        return _kept_by_a_llama(policy), 0
    finally:
        policy.module.train(trains)
    growing = sum(size for count, size in sizes if count % FED == 0)
    return round(growing / FED), sum(size for _, size in sizes) - growing


def _kept_by_a_llama(policy: Policy) -> int:
    """Bytes a token of a decoder with two norms and a gated MLP a layer; about right for its relatives."""
    config = policy.config
    width, between = config.hidden_size, getattr(config, "intermediate_size", 4 * config.hidden_size)
    return int(config.num_hidden_layers * (4 * between * policy.compute_dtype.itemsize + 30 * width))


def _saved(policy: Policy) -> list[tuple[int, int]]:
    """(numbers, bytes) of each storage that the body's forward saves, weights apart."""
    own = {_storage(parameter) for parameter in policy.module.parameters()}
    kept: list[torch.Tensor] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)  # the list keeps its storage alive, so that no other gets its address
        return tensor

    packed = pack([[0] * PROMPT], [[torch.zeros(COMPLETION, dtype=torch.long)]]).to(policy.device)
    hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
    with _shapes_of(policy), policy.computing(), hooks:
        plan = PackedPlan(packed.groups, policy.compute_dtype)
        hidden = policy.hidden(packed.input_ids, packed.position_ids, plan)
        sizes = {
            _storage(tensor): (
                tensor.untyped_storage().nbytes() // tensor.element_size(),
                tensor.untyped_storage().nbytes(),
            )
            for tensor in kept
        }
        del hidden
    return [size for storage, size in sizes.items() if storage not in own]


def _storage(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _shapes_of(policy: Policy) -> Any:
    """The mode in which tensors of shapes alone compute; nothing for a real policy."""
    mode = getattr(next(policy.module.parameters()), "fake_mode", None)
    return mode if mode is not None else contextlib.nullcontext()


def outline_policy(config: Any, tokenizer: Any, weight_dtype: torch.dtype, compute_dtype: torch.dtype) -> Policy:
    """A policy that computes with shapes and without numbers: no memory, no time. `config`: transformers'."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from transformers import AutoModelForCausalLM

    with FakeTensorMode(allow_non_fake_inputs=True):  # token ids are real
        module = AutoModelForCausalLM.from_config(config, dtype=weight_dtype)
        return Policy(module, tokenizer, compute_dtype, like=_Packable())  # type: ignore[arg-type]


class _Packable:
    """What of a model cannot be asked without its numbers: taken to run packed, as the families that are tested do."""

    packable_reason: str | None = None
