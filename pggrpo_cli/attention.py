"""The attention function that lets any transformers model run ragged batches: no padding, no mask, no cache class.

transformers calls it (through AttentionInterface) with the queries, keys and values of one flat row of tokens. What
the tokens are to each other stands in a plan, passed to the model as `attention_plan=`: a PackedPlan (prompts, each
followed by the completions that share it) or a DecodePlan (one new token for each live row). Inside these functions,
and nowhere else, completions are laid out as rectangles, because the kernels want them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch.nn import functional as F
from transformers import AttentionInterface

from pggrpo_cli.key_values import KeyValueStore

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


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, heads: Heads
) -> torch.Tensor:
    """softmax(q kᵀ · scaling) v with grouped heads and no repeated keys.

    query [B, H, Q, D], key and value [B, K, L, D], mask bool, [Q, L] or [B, 1, Q, L] (True = visible) → [B, H, Q, D].
    The H/K query heads of one key head are stacked along the query dimension.
    """
    batch, num_heads, length, size = query.shape
    group = num_heads // key.shape[1]
    query = query.reshape(batch, key.shape[1], group * length, size)
    if mask is not None and group > 1:
        mask = mask.repeat(*([1] * (mask.dim() - 2)), group, 1)
    if heads.softcap is None:
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=heads.scaling)
    else:
        scale = heads.scaling if heads.scaling is not None else size**-0.5
        scores = torch.tanh((query @ key.transpose(-1, -2)).float() * scale / heads.softcap) * heads.softcap
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        out = scores.softmax(-1).to(value.dtype) @ value
    return out.reshape(batch, num_heads, length, value.shape[-1])


def _causal_mask(num_queries: int, num_keys: int, window: int | None, device: torch.device) -> torch.Tensor:
    """bool [num_queries, num_keys]: the queries are the last ones of the keys; a window counts positions."""
    query = torch.arange(num_keys - num_queries, num_keys, device=device)[:, None]
    key = torch.arange(num_keys, device=device)[None]
    mask = key <= query
    return mask if window is None else mask & (query - key < window)


@dataclass(frozen=True, slots=True)
class PackedGroup:
    """Where a prompt and its completions lie in the flat row of tokens."""

    start: int
    prompt_length: int
    completion_lengths: tuple[int, ...]
    """Input tokens of each completion (its last token is predicted, never fed), in order behind the prompt."""

    @property
    def num_tokens(self) -> int:
        return self.prompt_length + sum(self.completion_lengths)


@dataclass(slots=True)
class PackedPlan:
    """Prompts and their completions in one row: a completion sees its prompt and itself, a prompt sees itself.

    Linear layers run on the flat row, so each prompt is computed once, forward and backward. `keys`/`values` collect
    each layer's prompt keys for the sampler if `collect` is set (only prompts may be packed then).
    """

    groups: Sequence[PackedGroup]
    dtype: torch.dtype
    collect: bool = False
    keys: list[torch.Tensor] = field(default_factory=list)
    values: list[torch.Tensor] = field(default_factory=list)
    _masks: dict[tuple[int, int, int | None], torch.Tensor] = field(default_factory=dict)
    _layouts: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)

    def attend(self, heads: Heads) -> torch.Tensor:
        query, key, value = (part.to(self.dtype) for part in (heads.query, heads.key, heads.value))
        if self.collect:
            self.keys.append(key)
            self.values.append(value)
        parts: list[torch.Tensor] = []
        for index, group in enumerate(self.groups):
            span = slice(group.start, group.start + group.num_tokens)
            q, k, v = query[:, span], key[:, span], value[:, span]
            parts.append(self._prompt(q, k, v, group, heads))
            if any(group.completion_lengths):
                parts.append(self._completions(q, k, v, index, heads))
        return torch.cat(parts, dim=1)

    def _prompt(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, group: PackedGroup, heads: Heads
    ) -> torch.Tensor:
        n = group.prompt_length
        mask = self._mask(n, n, heads.sliding_window, query.device)
        return _attend(query[None, :, :n], key[None, :, :n], value[None, :, :n], mask, heads)[0]

    def _completions(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, index: int, heads: Heads
    ) -> torch.Tensor:
        """[H, tokens, D] of all completions: rectangles of [prompt | own] keys, laid out from the flat row and back.

        Completions start at their rectangle's left edge, so what fills a short one up stands behind it and is hidden
        from it by the causal mask alone.
        """
        group = self.groups[index]
        to_rectangle, to_flat = self._layout(index, query.device)
        rows, width = to_rectangle.shape
        flat = to_rectangle.reshape(-1)

        def rectangle(part: torch.Tensor) -> torch.Tensor:
            return part.index_select(1, flat).reshape(part.shape[0], rows, width, part.shape[2]).transpose(0, 1)

        def with_prompt(part: torch.Tensor) -> torch.Tensor:
            prompt = part[None, :, : group.prompt_length].expand(rows, -1, -1, -1)
            return torch.cat([prompt, rectangle(part)], dim=2)

        mask = self._mask(width, group.prompt_length + width, heads.sliding_window, query.device)
        out = _attend(rectangle(query), with_prompt(key), with_prompt(value), mask, heads)
        return out.transpose(0, 1).reshape(out.shape[1], rows * width, -1).index_select(1, to_flat)

    def _mask(self, num_queries: int, num_keys: int, window: int | None, device: torch.device) -> torch.Tensor:
        key = (num_queries, num_keys, window)
        if key not in self._masks:
            self._masks[key] = _causal_mask(num_queries, num_keys, window, device)
        return self._masks[key]

    def _layout(self, index: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """([rows, width] positions in the group's span, [tokens] positions in the flattened rectangle)."""
        if index not in self._layouts:
            group = self.groups[index]
            lengths = [length for length in group.completion_lengths if length]
            width, offset = max(lengths), group.prompt_length
            rectangle = torch.full((len(lengths), width), offset, dtype=torch.long)
            flat: list[torch.Tensor] = []
            for row, length in enumerate(lengths):
                rectangle[row, :length] = torch.arange(offset, offset + length)
                flat.append(torch.arange(row * width, row * width + length))
                offset += length
            self._layouts[index] = (rectangle.to(device), torch.cat(flat).to(device))
        return self._layouts[index]


@dataclass(slots=True)
class DecodePlan:
    """One new token for each of the first B rows of the store, at that row's own length."""

    store: KeyValueStore
    lengths: torch.Tensor
    """int64 [B]: keys the row holds before this token."""
    longest: int
    """max(lengths) + 1, known on the host."""
    _masks: dict[int | None, torch.Tensor] = field(default_factory=dict)

    def attend(self, heads: Heads) -> torch.Tensor:
        keys, values = self.store.append(heads.layer, self.lengths, heads.key, heads.value)
        keys, values = keys[:, :, : self.longest], values[:, :, : self.longest]
        query = heads.query.to(keys.dtype).transpose(0, 1).unsqueeze(2)
        out = _attend(query, keys, values, self._mask(heads.sliding_window), heads)
        return out.squeeze(2).transpose(0, 1)

    def _mask(self, window: int | None) -> torch.Tensor:
        """bool [B, 1, 1, longest]"""
        if window not in self._masks:
            position = torch.arange(self.longest, device=self.lengths.device)[None]
            last = self.lengths[:, None]
            mask = position <= last
            if window is not None:
                mask &= last - position < window
            self._masks[window] = mask[:, None, None]
        return self._masks[window]
