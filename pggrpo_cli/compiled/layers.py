"""Decoder layers whose update is computed by layer.c and packed_attention.c, with torch's own products between.

A layer of a packed forward is one step of the graph, forward and backward: what torch makes of norms, casts, rotations,
activations and residuals are some forty passes over memory, each as long as the tokens.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from pggrpo_cli.compiled.family import Block, Decoder, Unlike, block_of, decoder_of, epsilon_of
from pggrpo_cli.compiled.packed import CompiledPacked
from pggrpo_cli.compiled.update import in_torch, library_or_none
from pggrpo_cli.model_outline import context_length
from pggrpo_cli.packed_attention import PackedGroup, PackedPlan

WIDTH = 16
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.01}
"""How far what a compiled layer adds to its input may be from what torch's adds, on average, as a share of it."""


def compile_layers(module: Any, dtype: torch.dtype, *, ask: bool = True) -> str | None:
    """Lets the layers of a transformers model compute packed forwards by compiled code; None, or why they do not.

    Call with the packed attention set. The layers' classes change, as torch's parametrizations change them: copies of the
    module are compiled too, and everything but the forward of packed tokens stays what it was. `ask`: whether numbers can be
    compared; a module of shapes alone has none.
    """
    try:
        decoder = decoder_of(module)
    except Unlike as unlike:
        return str(unlike)
    if library_or_none(dtype, module.device) is None:
        return "there is no compiled code"
    try:
        reason = _difference(module, decoder, dtype) if ask else None
    except (RuntimeError, NotImplementedError, AttributeError, TypeError, ValueError, KeyError) as error:
        return f"{type(error).__name__}: {error}"
    if reason is None:
        for layer in module.base_model.layers:
            layer.__class__ = _class_of(layer)
    return reason


def _difference(module: Any, decoder: Decoder, dtype: torch.dtype) -> str | None:
    """None if compiled layers compute what the module's do, on two short sequences behind a prompt, at the beginning and at the
    end of the context; else what differs."""
    tokens = torch.arange(1, 8) % module.config.get_text_config().vocab_size
    near = torch.tensor([[0, 1, 2, 3, 4, 3, 4]])
    far = near + max(0, context_length(module.config) - 5)
    return _difference_at(module, decoder, dtype, tokens, near) or _difference_at(module, decoder, dtype, tokens, far)


def _difference_at(
    module: Any, decoder: Decoder, dtype: torch.dtype, tokens: torch.Tensor, positions: torch.Tensor
) -> str | None:
    with torch.no_grad(), torch.autocast("cpu", dtype=dtype, enabled=dtype == torch.bfloat16):
        x = decoder.embedding(tokens)[None]
        plan = PackedPlan([PackedGroup(0, 3, (2, 2))], dtype)
        given = {
            "position_embeddings": decoder.rotation(x, positions),
            "position_ids": positions,
            "attention_plan": plan,
        }
        for layer in module.base_model.layers:
            with in_torch():
                wanted = _first(layer.forward(x, **given)) - x
            found = _class_of(layer).compute_packed(layer, x, given)
            if found is None:
                return (
                    "its layers have other biases, norms of queries, sizes that are no multiples of 16 or other inputs"
                )
            difference = float((found - x - wanted).abs().mean() / wanted.abs().mean())
            if not difference < TOLERANCE[dtype]:
                return f"what a layer adds differs by {difference:.2g} of itself"
    return None


def _first(found: Any) -> torch.Tensor:
    result: torch.Tensor = found[0] if isinstance(found, tuple) else found
    return result


def _class_of(layer: Any) -> Any:
    plain: Any = type(layer)
    return plain if hasattr(plain, "compute_packed") else _compiled_class(plain)


@cache
def _compiled_class(plain: Any) -> Any:
    """A subclass of a decoder layer's class, of its name."""

    def compute(layer: Any, hidden_states: torch.Tensor, given: dict[str, Any]) -> torch.Tensor | None:
        shape = _shape_of(layer, hidden_states, given)
        if shape is None:
            return None
        block: Block = block_of(layer)
        weights = [linear.weight for linear in block.linears]
        biases = [linear.bias for linear in block.linears[:3]]
        norms = (block.attention_norm.weight, block.mlp_norm.weight)
        found: torch.Tensor = _Layer.apply(hidden_states[0].contiguous(), *norms, *weights, *biases, shape)
        return found[None]

    def forward(self: Any, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        found = None if args else compute(self, hidden_states, kwargs)
        return plain.forward(self, hidden_states, *args, **kwargs) if found is None else found

    names = {"__module__": plain.__module__, "__qualname__": plain.__qualname__, "__doc__": plain.__doc__}
    return type(plain.__name__, (plain,), {**names, "forward": forward, "compute_packed": staticmethod(compute)})


@dataclass(frozen=True, slots=True)
class _Shape:
    packed: CompiledPacked
    dtype: torch.dtype
    key_heads: int
    size: int
    scaling: float
    epsilon: float
    cosine: torch.Tensor
    """[N, D] float32, as the sine"""
    sine: torch.Tensor


def _shape_of(layer: Any, x: torch.Tensor, given: dict[str, Any]) -> _Shape | None:
    """None where the layer must compute itself: other attention than packed, hooks, or what layer.c does not compute."""
    plan, tables = given.get("attention_plan"), given.get("position_embeddings")
    if type(plan) is not PackedPlan or plan.collect or tables is None or x.dtype != torch.float32 or x.shape[0] != 1:
        return None
    packed = plan.compiled_for(x.device)
    if packed is None or (block := _plain_block(layer)) is None:
        return None
    if any(linear.weight.dtype not in (torch.float32, plan.dtype) for linear in block.linears):
        return None
    if any(norm.weight.dtype != torch.float32 for norm in block.norms) or tables[0].dtype != torch.float32:
        return None
    size = layer.self_attn.head_dim
    if x.shape[2] % WIDTH or block.gate.out_features % WIDTH or size % 2:
        return None
    return _Shape(
        packed=packed,
        dtype=plan.dtype,
        key_heads=block.key.out_features // size,
        size=size,
        scaling=float(layer.self_attn.scaling),
        epsilon=epsilon_of(block.attention_norm),
        cosine=tables[0][0].contiguous(),
        sine=tables[1][0].contiguous(),
    )


def _plain_block(layer: Any) -> Block | None:
    """None where something of somebody's own stands between the layer and its weights, or where layer.c lacks a part."""
    try:
        block = block_of(layer)
    except (AttributeError, Unlike):
        return None
    parts = (layer.self_attn, layer.mlp, layer.mlp.act_fn, *block.linears, *block.norms)
    if block.query_norm is not None or block.key_norm is not None or any(map(_touched, parts)):
        return None
    if any(type(linear) is not nn.Linear for linear in block.linears):
        return None
    biased = [linear.bias is not None for linear in block.linears]
    if any(biased[3:]) or len(set(biased[:3])) > 1:
        return None
    return None if any("weight" not in part._parameters for part in (*block.linears, *block.norms)) else block


def _touched(part: nn.Module) -> bool:
    hooks = (part._forward_hooks, part._forward_pre_hooks, part._backward_hooks, part._backward_pre_hooks)
    return any(hooks) or "forward" in vars(part)


class _Layer(torch.autograd.Function):
    """x [N, d] float32 → [N, d]. Products are torch's, in shape.dtype; weights of what reads the same tensor are joined."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, attention_norm: torch.Tensor, mlp_norm: torch.Tensor, *rest: Any
    ) -> torch.Tensor:
        *weights, query_bias, key_bias, value_bias, shape = rest
        query, key, value, out, gate, up, down = weights
        calls = _Calls(shape)
        qkv_weight, gate_up_weight = calls.joined(query, key, value), calls.joined(gate, up)
        out_weight, down_weight = out.to(shape.dtype), down.to(shape.dtype)
        first = calls.normalized(x, None, attention_norm)[1]
        biases = None if query_bias is None else torch.cat([query_bias, key_bias, value_bias]).to(shape.dtype)
        heads = calls.rotated(F.linear(first, qkv_weight, biases))
        mixed, masses = shape.packed.attended(*heads, shape.scaling)
        mixed = mixed.flatten(1)
        middle, second = calls.normalized(x, mixed @ out_weight.t(), mlp_norm)
        gate_up = second @ gate_up_weight.t()
        gated = calls.gated(gate_up)
        ctx.save_for_backward(
            *(x, attention_norm, mlp_norm, qkv_weight, out_weight, gate_up_weight, down_weight),
            *(first, *heads, masses, mixed, middle, second, gate_up, gated),
        )
        ctx.shape, ctx.bias_dtype = shape, None if query_bias is None else query_bias.dtype
        ctx.rows = [(weight.shape[0], weight.dtype) for weight in weights]
        return calls.added(middle, gated @ down_weight.t())

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, attention_norm, mlp_norm, qkv_weight, out_weight, gate_up_weight, down_weight, *kept = ctx.saved_tensors
        first, query, key, value, masses, mixed, middle, second, gate_up, gated = kept
        shape, calls, grad = ctx.shape, _Calls(ctx.shape), grads[0].contiguous()
        low = grad.to(shape.dtype)
        of_down = low.t() @ gated
        of_gate_up = calls.gated_gradient(gate_up, low @ down_weight)
        of_gate, of_up = (of_gate_up.t() @ second).split([ctx.rows[4][0], ctx.rows[5][0]])
        grad, low, of_mlp_norm = calls.normalized_gradient(middle, of_gate_up @ gate_up_weight, grad, mlp_norm)
        of_out = low.t() @ mixed
        of_mixed = (low @ out_weight).view_as(query)
        of_heads = shape.packed.gradients(query, key, value, masses, of_mixed, shape.scaling)
        of_qkv = calls.rotated_back(*of_heads)
        of_query, of_key, of_value = (of_qkv.t() @ first).split([rows for rows, _ in ctx.rows[:3]])
        grad, _, of_attention_norm = calls.normalized_gradient(x, of_qkv @ qkv_weight, grad, attention_norm)
        found = (of_query, of_key, of_value, of_out, of_gate, of_up, of_down)
        of_weights = (part.to(dtype) for part, (_, dtype) in zip(found, ctx.rows, strict=True))
        of_biases: tuple[torch.Tensor | None, ...] = (None, None, None)
        if ctx.bias_dtype is not None:
            of_biases = of_qkv.sum(0, dtype=torch.float32).to(ctx.bias_dtype).split([rows for rows, _ in ctx.rows[:3]])
        return grad, of_attention_norm, of_mlp_norm, *of_weights, *of_biases, None


@dataclass(frozen=True, slots=True)
class _Calls:
    """The functions of layer.c. Rows [N, …] are contiguous; float32 x and grad, everything else in shape.dtype."""

    shape: _Shape

    def joined(self, *weights: torch.Tensor) -> torch.Tensor:
        whole = weights[0].new_empty(
            sum(len(weight) for weight in weights), weights[0].shape[1], dtype=self.shape.dtype
        )
        for part, weight in zip(whole.split([len(weight) for weight in weights]), weights, strict=True):
            part.copy_(weight)
        return whole

    def normalized(
        self, x: torch.Tensor, more: torch.Tensor | None, weight: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(x + more, its norm)"""
        total = x if more is None else torch.empty_like(x)
        out = torch.empty_like(x, dtype=self.shape.dtype)
        addresses = (total.data_ptr(), out.data_ptr())
        self._call("normalized")(
            x.data_ptr(), None if more is None else more.data_ptr(), *x.shape, weight.data_ptr(), self.shape.epsilon,
            *addresses, torch.get_num_threads(),
        )  # fmt: skip
        return total, out

    def normalized_gradient(
        self, x: torch.Tensor, slope: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Of x, the same in shape.dtype, and of the weight."""
        found = (torch.empty_like(x), torch.empty_like(slope), torch.empty_like(weight))
        self._call("normalized_gradient")(
            x.data_ptr(), slope.data_ptr(), residual.data_ptr(), *x.shape, weight.data_ptr(), self.shape.epsilon,
            *(part.data_ptr() for part in found), torch.get_num_threads(),
        )  # fmt: skip
        return found

    def added(self, x: torch.Tensor, more: torch.Tensor) -> torch.Tensor:
        total = torch.empty_like(x)
        self._call("added")(x.data_ptr(), more.data_ptr(), x.numel(), total.data_ptr(), torch.get_num_threads())
        return total

    def rotated(self, qkv: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """[N, (H + 2 K) · D] → [N, H, D], [N, K, D], [N, K, D]"""
        rows, size, key_heads = qkv.shape[0], self.shape.size, self.shape.key_heads
        counts = (qkv.shape[1] // size - 2 * key_heads, key_heads, key_heads)
        query, key, value = (qkv.new_empty(rows, count, size) for count in counts)
        self._rotate(qkv, query, key, value, back=False)
        return query, key, value

    def rotated_back(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        qkv = query.new_empty(query.shape[0], (query.shape[1] + 2 * key.shape[1]) * query.shape[2])
        self._rotate(qkv, query, key, value, back=True)
        return qkv

    def _rotate(
        self, qkv: torch.Tensor, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, back: bool
    ) -> None:
        tables = (self.shape.cosine.data_ptr(), self.shape.sine.data_ptr())
        self._call("rotated")(
            qkv.data_ptr(), *query.shape[:2], key.shape[1], query.shape[2], *tables,
            *(part.data_ptr() for part in (query, key, value)), back, torch.get_num_threads(),
        )  # fmt: skip

    def gated(self, gate_up: torch.Tensor) -> torch.Tensor:
        rows, inner = gate_up.shape[0], gate_up.shape[1] // 2
        out = gate_up.new_empty(rows, inner)
        self._call("gated")(gate_up.data_ptr(), rows, inner, out.data_ptr(), torch.get_num_threads())
        return out

    def gated_gradient(self, gate_up: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
        found = torch.empty_like(gate_up)
        addresses = (gate_up.data_ptr(), grad.data_ptr())
        self._call("gated_gradient")(*addresses, *grad.shape, found.data_ptr(), torch.get_num_threads())
        return found

    def _call(self, name: str) -> Callable[..., None]:
        library: ctypes.CDLL = self.shape.packed.library
        found: Callable[..., None] = getattr(library, name)
        return found
