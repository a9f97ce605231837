"""The sampler's key–value storage: owned by us, allocated once a rollout, a prompt's keys once for all its completions."""

from __future__ import annotations

import torch


class KeyValueStore:
    """Keys and values of prompts, in slots, and of the completions in the making, in rows.

    A layer's blocks are [slots, K, prompt capacity, D] and [rows, K, completion capacity, D] (K key–value heads, D head
    size), made when the layer first writes. The live slots and rows are the first ones: one that is done with is
    overwritten by the last live one (`move_prompt`, `move_row`), nothing else is ever copied.
    """

    def __init__(self, slots: int, prompt_capacity: int, rows: int, capacity: int, dtype: torch.dtype) -> None:
        self._prompt_shape, self._row_shape = (slots, prompt_capacity), (rows, capacity)
        self._dtype = dtype
        self._prompts: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._rows: list[tuple[torch.Tensor, torch.Tensor]] = []

    def write_prompt(self, layer: int, slot: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """A prompt's keys and values [K, L, D]."""
        if layer == len(self._prompts):
            self._prompts.append((self._empty(self._prompt_shape, keys), self._empty(self._prompt_shape, values)))
            self._rows.append((self._empty(self._row_shape, keys), self._empty(self._row_shape, values)))
        for block, part in zip(self._prompts[layer], (keys, values), strict=True):
            block[slot, :, : part.shape[1]] = part

    def prompts(self, layer: int, slots: int, longest: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values [slots, K, longest, D] of the live slots."""
        keys, values = self._prompts[layer]
        return keys[:slots, :, :longest], values[:slots, :, :longest]

    def append(
        self, layer: int, lengths: torch.Tensor | int, keys: torch.Tensor, values: torch.Tensor, longest: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes one token's keys and values [K, B, D] behind what each of the B live rows holds, which `lengths` says,
        int64 [B] or one number if all hold as many → keys and values of the rows [B, K, longest, D]."""
        live = keys.shape[1]
        for block, part in zip(self._rows[layer], (keys, values), strict=True):
            if isinstance(lengths, int):
                block[:live, :, lengths] = part.transpose(0, 1)
            else:
                block[torch.arange(live, device=part.device), :, lengths] = part.transpose(0, 1).to(self._dtype)
        own_keys, own_values = self._rows[layer]
        return own_keys[:live, :, :longest], own_values[:live, :, :longest]

    def move_prompt(self, source: int, target: int, length: int) -> None:
        """Slot `target` becomes a copy of slot `source`, whose first `length` positions count."""
        _move(self._prompts, source, target, length)

    def move_row(self, source: int, target: int, length: int) -> None:
        """Row `target` becomes a copy of row `source`, whose first `length` positions count."""
        _move(self._rows, source, target, length)

    def _empty(self, shape: tuple[int, int], like: torch.Tensor) -> torch.Tensor:
        # Zeros, not empty: what lies behind a length is masked, but 0 · NaN would still be NaN.
        whole = (shape[0], like.shape[0], shape[1], like.shape[2])
        return torch.zeros(whole, dtype=self._dtype, device=like.device)


def _move(layers: list[tuple[torch.Tensor, torch.Tensor]], source: int, target: int, length: int) -> None:
    for blocks in layers:
        for block in blocks:
            block[target, :, :length] = block[source, :, :length]
