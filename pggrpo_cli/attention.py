"""The attention function that lets any transformers model run ragged batches: no padding, no mask, no cache class.

transformers calls it (through AttentionInterface) with the queries, keys and values of one flat row of tokens. What
the tokens are to each other stands in a plan, passed to the model as `attention_plan=`: a PackedPlan (prompts, each
followed by the completions that share it; packed_attention.py) or a DecodePlan (one new token for each live row;
engine/decode_attention.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.nn import functional as F
from transformers import AttentionInterface

ATTENTION_NAME = "pggrpo"


class AttentionPlan(Protocol):
    """How the tokens of this forward see each other."""

    def attend(self, heads: Heads) -> torch.Tensor:
        """The attention's output [query heads, tokens, head size]."""
        ...


@dataclass(frozen=True, slots=True)
class Heads:
    """One layer's share of the work. N tokens, H query heads, K key–value heads, D head size."""

    query: torch.Tensor
    """[H, N, D], rotated."""
    key: torch.Tensor
    """[K, N, D], rotated."""
    value: torch.Tensor
    """[K, N, D]"""
    layer: int
    scaling: float | None
    sliding_window: int | None
    softcap: float | None


def _attention_function(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    attention_plan: AttentionPlan | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    if attention_plan is None:
        raise RuntimeError("the model was called without an attention_plan: use Policy, not the module")
    if kwargs.get("s_aux") is not None:
        raise NotImplementedError("attention sinks")
    heads = Heads(query[0], key[0], value[0], int(module.layer_idx), scaling, sliding_window, softcap)  # type: ignore[arg-type]
    return attention_plan.attend(heads).transpose(0, 1).unsqueeze(0), None


AttentionInterface.register(ATTENTION_NAME, _attention_function)


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, heads: Heads
) -> torch.Tensor:
    """softmax(q kᵀ · scaling) v with grouped heads and no repeated keys.

    query [B, H, Q, D], key and value [B, K, L, D] → [B, H, Q, D]. The H/K query heads of one key head are stacked along
    the query dimension: mask bool [H/K · Q, L] or one that expands to [B, K, H/K · Q, L] (True = visible).
    """
    batch, num_heads, length, size = query.shape
    group = num_heads // key.shape[1]
    query = query.reshape(batch, key.shape[1], group * length, size)
    if heads.softcap is None:
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=heads.scaling)
    else:
        scale = heads.scaling if heads.scaling is not None else size**-0.5
        wide = torch.promote_types(query.dtype, torch.float32)
        scores = torch.tanh((query @ key.transpose(-1, -2)).to(wide) * scale / heads.softcap) * heads.softcap
        scores = scores.masked_fill(~mask, float("-inf"))
        out = scores.softmax(-1).to(value.dtype) @ value
    return out.reshape(batch, num_heads, length, value.shape[-1])
