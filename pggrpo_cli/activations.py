"""What a forward keeps for its backward, asked of the model itself: autograd says what it saves, for any architecture."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from pggrpo_cli.packing import pack
from pggrpo_cli.policy import Policy

SHORT, LONG = 16, 48
"""Tokens of the two forwards whose difference is what a token keeps."""


def kept_for_backward(policy: Policy) -> tuple[int, int]:
    """(bytes a token, bytes whatever the number of tokens: weights that autocast has cast) of an update's forward.

    Without gradient checkpointing, whatever the policy's own. The policy may be one of shapes alone (`outline_policy`).
    """
    trains = policy.module.training
    policy.module.eval()  # where transformers does not checkpoint
    try:
        short, long = _saved(policy, SHORT), _saved(policy, LONG)
    except RuntimeError:  # a forward that looks at numbers, which an outline has not
        return _kept_by_a_llama(policy), 0
    finally:
        policy.module.train(trains)
    per_token = (long - short) / (LONG - SHORT)
    return round(per_token), max(0, round(short - SHORT * per_token))


def _kept_by_a_llama(policy: Policy) -> int:
    """Bytes a token of a decoder with two norms and a gated MLP a layer; about right for its relatives."""
    config = policy.config
    width, between = config.hidden_size, getattr(config, "intermediate_size", 4 * config.hidden_size)
    return int(config.num_hidden_layers * (4 * between * policy.compute_dtype.itemsize + 30 * width))


def _saved(policy: Policy, tokens: int) -> int:
    """Bytes of all that one forward of about so many packed tokens saves, weights apart."""
    own = {_storage(parameter) for parameter in policy.module.parameters()}
    kept: list[torch.Tensor] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)  # the list keeps its storage alive, so that no other gets its address
        return tensor

    half = tokens // 2
    packed = pack([[0] * half], [[torch.zeros(half + 1, dtype=torch.long)]]).to(policy.device)
    with _shapes_of(policy), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        scores = policy.score(packed, 1.0, with_entropy=True)
        sizes = {_storage(tensor): tensor.untyped_storage().nbytes() for tensor in kept}
        del scores
    return sum(size for storage, size in sizes.items() if storage not in own)


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
