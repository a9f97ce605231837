"""Reads a transformers model as the decoder that decode.c computes: RMSNorm, rotated grouped heads, a gated SiLU.

That is Llama, Mistral, Qwen 2 and 3, SmolLM and their like. Read is what the module is made of, not what it is called; what
cannot be read from its parts (factors in a forward) shows when both are asked for the same logits (steps.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

MOST_STACKED = 16
"""Query heads of one key head, as attention.h has it."""


class Unlike(Exception):
    """How a model differs from what decode.c computes, in a few words."""


@dataclass(frozen=True, slots=True)
class Block:
    """One layer. Norms have a weight [hidden] or [size], projections a weight [out, in] and maybe a bias [out]."""

    attention_norm: nn.Module
    mlp_norm: nn.Module
    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    out: nn.Linear
    gate: nn.Linear
    up: nn.Linear
    down: nn.Linear
    query_norm: nn.Module | None
    key_norm: nn.Module | None

    @property
    def linears(self) -> tuple[nn.Linear, ...]:
        return (self.query, self.key, self.value, self.out, self.gate, self.up, self.down)

    @property
    def norms(self) -> tuple[nn.Module, ...]:
        found = (self.attention_norm, self.mlp_norm, self.query_norm, self.key_norm)
        return tuple(norm for norm in found if norm is not None)


@dataclass(frozen=True, slots=True)
class Decoder:
    blocks: tuple[Block, ...]
    final_norm: nn.Module
    embedding: nn.Module
    rotation: nn.Module
    """(hidden states, position ids [1, B]) → cosine and sine [1, B, size]"""
    key_heads: int
    size: int
    scaling: float
    epsilon: float


def decoder_of(module: Any) -> Decoder:
    """Raises Unlike."""
    base = module.base_model
    config = module.config.get_text_config()
    if (reason := _beyond_a_probe(config)) is not None:
        raise Unlike(reason)
    try:
        blocks = tuple(block_of(layer) for layer in base.layers)
        attention = base.layers[0].self_attn
        found = Decoder(
            blocks=blocks,
            final_norm=base.norm,
            embedding=module.get_input_embeddings(),
            rotation=base.rotary_emb,
            key_heads=blocks[0].key.out_features // attention.head_dim,
            size=attention.head_dim,
            scaling=float(attention.scaling),
            epsilon=epsilon_of(base.norm),
        )
    except (AttributeError, IndexError, TypeError) as error:
        raise Unlike(f"its parts are others ({error})") from None
    _check(module, base, found)
    return found


def block_of(layer: Any) -> Block:
    attention, mlp = layer.self_attn, layer.mlp
    if not isinstance(mlp.act_fn, nn.SiLU) and type(mlp.act_fn).__name__ != "SiLUActivation":
        raise Unlike(f"its activation is {type(mlp.act_fn).__name__}")
    return Block(
        attention_norm=layer.input_layernorm,
        mlp_norm=layer.post_attention_layernorm,
        query=attention.q_proj,
        key=attention.k_proj,
        value=attention.v_proj,
        out=attention.o_proj,
        gate=mlp.gate_proj,
        up=mlp.up_proj,
        down=mlp.down_proj,
        query_norm=getattr(attention, "q_norm", None),
        key_norm=getattr(attention, "k_norm", None),
    )


def _check(module: Any, base: Any, decoder: Decoder) -> None:
    linears = [linear for block in decoder.blocks for linear in block.linears]
    norms = [norm for block in decoder.blocks for norm in block.norms]
    for part in base.modules():
        if part._forward_hooks or part._forward_pre_hooks:
            raise Unlike("somebody's hooks are in it")
    for part in (*linears, *norms, decoder.final_norm):
        if "forward" in vars(part):
            raise Unlike("somebody's hooks are in it")
    if any(type(linear) is not nn.Linear for linear in linears):
        raise Unlike("its linear layers are others than torch's")
    for norm in (*norms, decoder.final_norm):
        if epsilon_of(norm) != decoder.epsilon or not isinstance(getattr(norm, "weight", None), nn.Parameter):
            raise Unlike("its norms differ")
        if getattr(norm, "bias", None) is not None:
            raise Unlike("its norms have a bias")
    shapes = {norm.weight.shape for block in decoder.blocks for norm in block.norms[2:]}
    if shapes - {(decoder.size,)}:
        raise Unlike("its norms of queries and keys go over all heads")
    for parts in ((block.query, block.key, block.value) for block in decoder.blocks):
        if len({part.bias is None for part in parts}) > 1:
            raise Unlike("some of its queries, keys and values have a bias")
    if any((block.gate.bias is None) != (block.up.bias is None) for block in decoder.blocks):
        raise Unlike("one of its gates has a bias")
    if decoder.blocks[0].query.out_features > MOST_STACKED * decoder.blocks[0].key.out_features:
        raise Unlike(f"more than {MOST_STACKED} query heads share a key head")
    first = decoder.blocks[0]
    heads = first.query.out_features // decoder.size
    for block in decoder.blocks:
        wanted = _shapes(first.query.in_features, heads, decoder, block.gate.out_features)
        if [tuple(linear.weight.shape) for linear in block.linears] != wanted:
            raise Unlike("its layers' shapes are others")
    if len({block.gate.out_features for block in decoder.blocks}) > 1 or heads % decoder.key_heads:
        raise Unlike("its layers differ in size")
    if any(linear.in_features % 2 for linear in linears) or decoder.size % 2:
        raise Unlike("its sizes are odd")
    known = {id(parameter) for part in (*linears, *norms, decoder.final_norm) for parameter in part.parameters()}
    known |= {id(parameter) for parameter in decoder.embedding.parameters()}
    if any(id(parameter) not in known for parameter in base.parameters()):
        raise Unlike("it has parts of its own")
    kinds = {parameter.dtype for parameter in module.parameters()}
    if kinds != {torch.float32}:
        raise Unlike(f"its weights are {', '.join(sorted(str(kind).removeprefix('torch.') for kind in kinds))}")
    if module.device.type != "cpu":
        raise Unlike(f"it is on {module.device.type}")


def _shapes(hidden: int, heads: int, decoder: Decoder, inner: int) -> list[tuple[int, int]]:
    """Of the weights [out, in] of a block's linear layers, in their order."""
    attended, keys = heads * decoder.size, decoder.key_heads * decoder.size
    return [
        *((attended, hidden), (keys, hidden), (keys, hidden), (hidden, attended)),
        *((inner, hidden), (inner, hidden), (hidden, inner)),
    ]


def _beyond_a_probe(config: Any) -> str | None:
    """What a configuration asks for that a few short prompts might not show."""
    kinds = set(getattr(config, "layer_types", None) or ())
    window = getattr(config, "sliding_window", None) is not None and getattr(config, "use_sliding_window", True)
    if kinds - {"full_attention"} or (window and not kinds):
        return "it attends in windows"
    rotation = getattr(config, "rope_parameters", None) or {}
    if rotation.get("rope_type") == "dynamic":
        return "its rotation depends on what it has seen before"
    if rotation.get("llama_4_scaling_beta"):
        return "its queries grow with their position"
    if not all(getattr(config, "no_rope_layers", None) or (1,)):
        return "some of its layers do not rotate"
    if getattr(config, "attn_logit_softcapping", None):
        return "its scores are capped"
    return None


def epsilon_of(norm: nn.Module) -> float:
    for name in ("variance_epsilon", "eps", "epsilon"):
        if isinstance(found := getattr(norm, name, None), float):
            return found
    raise Unlike(f"{type(norm).__name__} has no epsilon")
