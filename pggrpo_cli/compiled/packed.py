"""Attention of packed tokens by packed_attention.c."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from pggrpo_cli.packed_attention import PackedGroup

COMPLETIONS_OF_A_PART = 4
"""That one thread computes with one copy of their prompt's keys."""
WIDTH = 16


class _Part(ctypes.Structure):
    """struct part of packed_attention.c."""

    _fields_ = [(name, ctypes.c_int64) for name in ("prompt", "prompt_length", "start", "first", "count", "shared")]


class _Packed(ctypes.Structure):
    """struct packed of packed_attention.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("heads", "key_heads", "size")),
        ("scaling", ctypes.c_float),
        *((name, ctypes.c_int64) for name in ("parts", "most_keys")),
        ("part", ctypes.POINTER(_Part)),
        ("lengths", ctypes.POINTER(ctypes.c_int64)),
        ("threads", ctypes.c_int64),
    ]


@dataclass(frozen=True, slots=True)
class CompiledPacked:
    """Which tokens see which, for all layers."""

    library: ctypes.CDLL
    parts: tuple[tuple[int, int, int, int, int, int], ...]
    """struct part; the last number counts keys, not numbers."""
    lengths: tuple[int, ...]
    """Of all sequences with tokens."""
    most_keys: int
    shared_keys: int
    """Keys of prompts, once a part."""

    @classmethod
    def of(cls, library: ctypes.CDLL, groups: Sequence[PackedGroup]) -> CompiledPacked:
        parts: list[tuple[int, int, int, int, int, int]] = []
        lengths: list[int] = []
        most, shared = 0, 0
        for group in groups:
            parts.append((0, 0, group.start, len(lengths), 1, shared))
            lengths.append(group.prompt_length)
            shared += group.prompt_length
            start = group.start + group.prompt_length
            own = [length for length in group.completion_lengths if length]
            for first in range(0, len(own), COMPLETIONS_OF_A_PART):
                some = own[first : first + COMPLETIONS_OF_A_PART]
                parts.append((group.start, group.prompt_length, start, len(lengths), len(some), shared))
                lengths += some
                shared += group.prompt_length
                start += sum(some)
            most = max(most, _padded(group.prompt_length) + _padded(max(own, default=0)))
        return cls(library, tuple(parts), tuple(lengths), most, shared)

    def attended(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """query [N, H, D], key and value [N, K, D], contiguous → the output [N, H, D], and struct mass [N, H, 2]."""
        out = torch.empty_like(query)
        masses = query.new_empty((*query.shape[:2], 2), dtype=torch.float32)
        addresses = (part.data_ptr() for part in (query, key, value, out, masses))
        self.library.packed_attention(ctypes.byref(self._described(query, key, scaling)), *addresses)
        return out, masses

    def gradients(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        masses: torch.Tensor,
        grad: torch.Tensor,
        scaling: float,
    ) -> tuple[torch.Tensor, ...]:
        """Of query, key and value; grad [N, H, D], contiguous."""
        found = tuple(torch.empty_like(part) for part in (query, key, value))
        shared = query.new_empty(2 * self.shared_keys * key.shape[1] * key.shape[2], dtype=torch.float32)
        addresses = (part.data_ptr() for part in (query, key, value, grad, masses, *found, shared))
        self.library.packed_attention_gradients(ctypes.byref(self._described(query, key, scaling)), *addresses)
        return found

    def _described(self, query: torch.Tensor, key: torch.Tensor, scaling: float) -> _Packed:
        """struct packed."""
        (_, heads, size), key_heads = query.shape, key.shape[1]
        parts = (_Part * len(self.parts))(*(_Part(*part[:5], part[5] * 2 * key_heads * size) for part in self.parts))
        return _Packed(
            heads=heads,
            key_heads=key_heads,
            size=size,
            scaling=scaling,
            parts=len(parts),
            most_keys=self.most_keys,
            part=parts,
            lengths=(ctypes.c_int64 * len(self.lengths))(*self.lengths),
            threads=torch.get_num_threads(),
        )


def packed_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, packed: CompiledPacked, scaling: float | None
) -> torch.Tensor:
    """query [N, H, D], key and value [N, K, D], in the library's dtype → [N, H, D], differentiable."""
    scaling = query.shape[2] ** -0.5 if scaling is None else scaling
    out: torch.Tensor = _Attention.apply(query.contiguous(), key.contiguous(), value.contiguous(), packed, scaling)
    return out


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, packed: CompiledPacked, scaling: float
    ) -> torch.Tensor:
        out, masses = packed.attended(query, key, value, scaling)
        ctx.save_for_backward(query, key, value, masses)
        ctx.options = (packed, scaling)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        packed, scaling = ctx.options
        return *packed.gradients(*ctx.saved_tensors, grads[0].contiguous(), scaling), None, None


def _padded(count: int) -> int:
    return -(-count // WIDTH) * WIDTH
