"""Attention of prompts and the completions that share them, in one flat row of tokens.

Linear layers run on the flat row, so each prompt is computed once, forward and backward. Inside this file, and nowhere
else, completions are laid out as rectangles, because the kernels want them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from pggrpo_cli.attention import Heads, attend
from pggrpo_cli.compiled.packed import CompiledPacked, packed_attention
from pggrpo_cli.compiled.update import library_or_none

BLOCK_ELEMENTS = 4 << 20
"""Attention weights that one kernel call, or the backward, holds at a time."""


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


@dataclass(frozen=True, slots=True)
class _Own:
    """Tokens of the flat row as the rows of a rectangle, each sequence at the left edge of its own."""

    rows: int
    index: torch.Tensor
    """int64 [rows · width]: which token of the flat row stands where; what fills a short row up repeats a token."""
    tokens: slice
    """The tokens themselves, which follow each other in the flat row."""
    places: torch.Tensor
    """int64 [tokens]: where in [rows · width] each stands."""

    @property
    def width(self) -> int:
        return self.index.shape[0] // self.rows

    def laid_out(self, part: torch.Tensor) -> torch.Tensor:
        """part [N, H, D] → [rows, H, width, D]"""
        return part.index_select(0, self.index).reshape(self.rows, self.width, *part.shape[1:]).transpose(1, 2)

    def laid_out_once(self, part: torch.Tensor) -> torch.Tensor:
        """The same with zeros for what fills up: each token's gradient must count once."""
        flat = part.new_zeros(self.index.shape[0], *part.shape[1:]).index_copy_(0, self.places, part[self.tokens])
        return flat.reshape(self.rows, self.width, *part.shape[1:]).transpose(1, 2)

    def flat(self, rectangle: torch.Tensor) -> torch.Tensor:
        """[rows, H, width, D] → [tokens, H, D]"""
        rows, heads, width, size = rectangle.shape
        return rectangle.transpose(1, 2).reshape(rows * width, heads, size).index_select(0, self.places)


@dataclass(frozen=True, slots=True)
class _Rectangle:
    """Sequences that attend together: `queries` see the shared keys and, causally, the own `keys` of their row.

    The queries are the last of the keys: all of them, or a block of one long sequence. A filler stands behind its row
    and is hidden from it by the causal mask alone.
    """

    shared: slice
    """The prompt's tokens in the flat row; empty where the sequence is the prompt itself."""
    queries: _Own
    keys: _Own

    @property
    def num_shared(self) -> int:
        return int(self.shared.stop - self.shared.start)

    def laid_out_keys(self, part: torch.Tensor) -> torch.Tensor:
        """part [N, K, D] → shared and own keys or values [rows, K, L, D]."""
        own = self.keys.laid_out(part)
        if not self.num_shared:
            return own
        return torch.cat([part[self.shared].transpose(0, 1).expand(self.keys.rows, -1, -1, -1), own], dim=2)


@dataclass(slots=True)
class PackedPlan:
    """Prompts and their completions in one row: a completion sees its prompt and itself, a prompt sees itself.

    `keys`/`values` collect each layer's keys [K, N, D] for the sampler if `collect` is set (only prompts are packed
    then).
    """

    groups: Sequence[PackedGroup]
    dtype: torch.dtype
    collect: bool = False
    keys: list[torch.Tensor] = field(default_factory=list)
    values: list[torch.Tensor] = field(default_factory=list)
    _rectangles: list[_Rectangle] = field(default_factory=list)
    _masks: dict[tuple[int, int, int, int | None], torch.Tensor] = field(default_factory=dict)
    _compiled: CompiledPacked | None = None

    def attend(self, heads: Heads) -> torch.Tensor:
        query, key, value = (part.to(self.dtype) for part in (heads.query, heads.key, heads.value))
        if self.collect:
            self.keys.append(key)
            self.values.append(value)
        flat = (query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1))
        compiled = self._compiled_for(heads)
        if compiled is not None:
            return packed_attention(*flat, compiled, heads.scaling).transpose(0, 1)
        out: torch.Tensor = _PackedAttention.apply(*flat, self, heads)
        return out.transpose(0, 1)

    def _compiled_for(self, heads: Heads) -> CompiledPacked | None:
        """None where torch computes: no library, or what packed_attention.c does not do."""
        size = heads.query.shape[-1]
        if heads.softcap is not None or heads.sliding_window is not None or heads.value.shape[-1] != size or size % 2:
            return None
        return self.compiled_for(heads.query.device)

    def compiled_for(self, device: torch.device) -> CompiledPacked | None:
        """The plan as compiled code takes it; None where there is none."""
        library = library_or_none(self.dtype, device)
        if library is not None and self._compiled is None:
            self._compiled = CompiledPacked.of(library, self.groups)
        return None if library is None else self._compiled

    def rectangles(self, num_heads: int, device: torch.device) -> list[_Rectangle]:
        """Each group's prompt, and its completions, in the order of the flat row."""
        if not self._rectangles:
            for group in self.groups:
                end = group.start + group.prompt_length
                self._rectangles += _rectangles(slice(0, 0), group.start, (group.prompt_length,), num_heads, device)
                prompt = slice(group.start, end)
                self._rectangles += _rectangles(prompt, end, group.completion_lengths, num_heads, device)
        return self._rectangles

    def mask(self, rectangle: _Rectangle, stacked: int, window: int | None) -> torch.Tensor:
        """bool [stacked · Q, L]: True = visible; a window counts positions. `stacked`: the queries so many times."""
        num_queries, num_keys = rectangle.queries.width, rectangle.num_shared + rectangle.keys.width
        name = (num_queries, num_keys, stacked, window)
        if name not in self._masks:
            device = rectangle.queries.index.device
            query = torch.arange(num_keys - num_queries, num_keys, device=device).repeat(stacked)[:, None]
            key = torch.arange(num_keys, device=device)[None]
            mask = key <= query
            self._masks[name] = mask if window is None else mask & (query - key < window)
        return self._masks[name]


def _rectangles(
    shared: slice, start: int, sequence_lengths: Sequence[int], num_heads: int, device: torch.device
) -> list[_Rectangle]:
    """The sequences that follow each other from `start` on, in blocks of rows, or of one row's queries."""
    lengths = [length for length in sequence_lengths if length]
    if not lengths:
        return []
    longest, shared_length = max(lengths), shared.stop - shared.start
    row = num_heads * longest * (shared_length + longest)
    found: list[_Rectangle] = []
    if row <= BLOCK_ELEMENTS:
        step = BLOCK_ELEMENTS // row
        for first in range(0, len(lengths), step):
            own = _own(start, lengths[first : first + step], device)
            found.append(_Rectangle(shared, own, own))
            start = own.tokens.stop
        return found
    for length in lengths:
        step = max(1, BLOCK_ELEMENTS // (num_heads * (shared_length + length)))
        for first in range(0, length, step):
            end = min(first + step, length)
            queries = _own(start + first, [end - first], device)
            found.append(_Rectangle(shared, queries, _own(start, [end], device)))
        start += length
    return found


def _own(start: int, lengths: Sequence[int], device: torch.device) -> _Own:
    width, first = max(lengths), start
    index = torch.full((len(lengths), width), first, dtype=torch.long)
    places: list[torch.Tensor] = []
    for row, length in enumerate(lengths):
        index[row, :length] = torch.arange(start, start + length)
        places.append(torch.arange(row * width, row * width + length))
        start += length
    return _Own(len(lengths), index.reshape(-1).to(device), slice(first, start), torch.cat(places).to(device))


class _PackedAttention(torch.autograd.Function):
    """query [N, H, D], key and value [N, K, D] → [N, H, D].

    The forward is the fused kernel. The backward computes the weights again, explicitly, and writes each token's
    gradient once: on a CPU the fused kernel's own backward takes four times as long, and each slice of a flat row would
    bring a gradient as long as the row (docs/speed.md).
    """

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, plan: PackedPlan, heads: Heads
    ) -> torch.Tensor:
        out = query.new_empty(*query.shape[:2], value.shape[2])
        stacked = query.shape[1] // key.shape[1]
        for rectangle in plan.rectangles(query.shape[1], query.device):
            part = attend(
                rectangle.queries.laid_out(query),
                rectangle.laid_out_keys(key),
                rectangle.laid_out_keys(value),
                plan.mask(rectangle, stacked, heads.sliding_window),
                heads,
            )
            out[rectangle.queries.tokens] = rectangle.queries.flat(part)
        ctx.save_for_backward(query, key, value)
        # Without the tensors: they would stay alive behind save_for_backward's back, against gradient checkpointing.
        nothing = query.new_empty(0)
        ctx.plan, ctx.heads = plan, replace(heads, query=nothing, key=nothing, value=nothing)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value = ctx.saved_tensors
        plan, heads = ctx.plan, ctx.heads
        # Keys gather gradients of many queries: in float32 or wider, as a kernel would.
        wide = torch.promote_types(query.dtype, torch.float32)
        grad_query = torch.empty_like(query)
        grad_key, grad_value = (torch.zeros(part.shape, dtype=wide, device=part.device) for part in (key, value))
        stacked = query.shape[1] // key.shape[1]
        for rectangle in plan.rectangles(query.shape[1], query.device):
            of_query, of_key, of_value = _gradients(
                rectangle.queries.laid_out(query),
                rectangle.laid_out_keys(key),
                rectangle.laid_out_keys(value),
                rectangle.queries.laid_out_once(grads[0]),
                plan.mask(rectangle, stacked, heads.sliding_window),
                heads,
            )
            grad_query[rectangle.queries.tokens] = rectangle.queries.flat(of_query)
            shared = rectangle.num_shared
            for whole, part in ((grad_key, of_key), (grad_value, of_value)):
                whole[rectangle.keys.tokens] += rectangle.keys.flat(part[:, :, shared:])
                if shared:
                    whole[rectangle.shared] += part[:, :, :shared].sum(0, dtype=wide).transpose(0, 1)
        return grad_query, grad_key.to(key.dtype), grad_value.to(value.dtype), None, None


def _gradients(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, grad: torch.Tensor, mask: torch.Tensor, heads: Heads
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of softmax(softcap(q kᵀ · scaling)) v, with shapes as attend() takes them, grad [B, H, Q, D].

    S = q kᵀ · scaling, P = softmax(S): ∂v = Pᵀ ∂o, ∂P = ∂o vᵀ, ∂S = P (∂P − Σ P ∂P), ∂q = ∂S k · scaling,
    ∂k = ∂Sᵀ q · scaling. Scores and weights are float32 or wider, products of gradients in the tensors' own dtype.
    """
    shape, wide = query.shape, torch.promote_types(query.dtype, torch.float32)
    scaling = heads.scaling if heads.scaling is not None else shape[-1] ** -0.5
    stack = (shape[0], key.shape[1], -1, shape[3])
    query, grad = query.reshape(stack), grad.reshape(*stack[:3], value.shape[3])
    scores = (query.to(wide) * scaling) @ key.to(wide).transpose(-1, -2)
    if heads.softcap is not None:
        bent = torch.tanh(scores / heads.softcap)
        scores = bent * heads.softcap
    weights = scores.masked_fill_(~mask, float("-inf")).softmax(-1)
    of_value = weights.to(value.dtype).transpose(-1, -2) @ grad
    of_weights = (grad @ value.transpose(-1, -2)).to(wide)
    of_scores = torch.ops.aten._softmax_backward_data(of_weights, weights, -1, wide)
    if heads.softcap is not None:
        of_scores = of_scores * (1 - bent.square())
    of_scores = of_scores.mul_(scaling).to(query.dtype)
    return (of_scores @ key).reshape(shape), of_scores.transpose(-1, -2) @ query, of_value
