"""What a forward keeps for its backward, asked of the model itself: autograd says what it saves, for any architecture."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from pggrpo_cli.compiled.layers import compile_layers
from pggrpo_cli.packed_attention import PackedPlan
from pggrpo_cli.packing import pack
from pggrpo_cli.planning.model_shape import ModelShape
from pggrpo_cli.policy import Policy

PROMPT, COMPLETION = 20, 18
"""Tokens of the forward that is asked; the completion's last is not fed."""
FED = PROMPT + COMPLETION - 1
"""A prime number, so that it is a factor of the size of a tensor that grows with the tokens, and of no weight's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """Of an update's forward, without the output head. Bytes."""

    per_token: int
    fixed: int
    """Whatever the number of tokens: weights that autocast has cast."""
    guessed: bool
    """Whether the forward could not be asked, and what a decoder of that size keeps is taken instead."""


def kept_for_backward(policy: Policy) -> Kept:
    """Without gradient checkpointing, even if the policy has it. The policy may be one of shapes alone
    (`outline_policy`), in which a forward that looks at numbers fails: experts that are chosen, a scan."""
    trains = policy.module.training
    policy.module.eval()  # where transformers does not checkpoint
    try:
        sizes = _saved(policy)
    except Exception:  # a model's own code may raise anything; an estimate is no reason to end
        return Kept(per_token=_kept_by_a_llama(policy), fixed=0, guessed=True)
    finally:
        policy.module.train(trains)
    growing = sum(size for count, size in sizes if count % FED == 0)
    fixed = sum(size for _, size in sizes) - growing
    return Kept(per_token=round(growing / FED), fixed=fixed, guessed=False)


def _kept_by_a_llama(policy: Policy) -> int:
    """Bytes a token of a decoder with two norms and a gated MLP, or so many experts, a layer; about right for its
    relatives."""
    config, shape = policy.config.get_text_config(), ModelShape.of(policy.module)
    between = getattr(config, "moe_intermediate_size", None) or getattr(config, "intermediate_size", None)
    experts = getattr(config, "num_experts_per_tok", None) or 1
    width = experts * (between or 4 * shape.hidden)
    return int(shape.layers * (4 * width * policy.compute_dtype.itemsize + 30 * shape.hidden))


def _saved(policy: Policy) -> list[tuple[int, int]]:
    """(numbers, bytes) of each storage that the body's forward saves, weights apart."""
    own = {_storage(parameter) for parameter in policy.module.parameters()}
    kept: list[torch.Tensor] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)  # the list keeps its storage alive, so that no other gets its address
        return tensor

    packed = pack([[0] * PROMPT], [[torch.zeros(COMPLETION, dtype=torch.long)]]).to(policy.device)
    hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
    with _quiet(), _shapes_of(policy), policy.computing(), hooks:
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


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """torch logs the traceback of what shapes alone cannot do before it raises, and warns of addresses that they have not."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    former, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = former


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
        policy = Policy(module, tokenizer, compute_dtype, like=_Packable())  # type: ignore[arg-type]
        compile_layers(module, compute_dtype, ask=False)
        return policy


class _Packable:
    """What of a model cannot be asked without its numbers: taken to run packed, as the families that are tested do."""

    packable_reason: str | None = None
    uncompiled_reason: str | None = None
