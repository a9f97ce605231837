"""The sampler's key–value storage: owned by us, allocated once a rollout, ragged by length, compact by rows."""

from __future__ import annotations

import torch


class KeyValueStore:
    """Keys and values of S rows, each of its own length.

    A layer's block is [S, K, capacity, D] (K key–value heads, D head size), made when the layer first writes. Live rows
    are the first ones: a finished row is overwritten by the last live one (`move`), nothing else is ever copied.
    """

    def __init__(self, rows: int, capacity: int, dtype: torch.dtype) -> None:
        self._rows, self._capacity, self._dtype = rows, capacity, dtype
        self._keys: list[torch.Tensor] = []
        self._values: list[torch.Tensor] = []
        self._row_index = torch.empty(0, dtype=torch.long)

    def fill(self, layer: int, first_row: int, rows: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Writes a prompt's keys and values [K, L, D] into `rows` rows from `first_row` on."""
        if layer == len(self._keys):
            # Zeros, not empty: what lies behind a row's length is masked, but 0 · NaN would still be NaN.
            for blocks, part in ((self._keys, keys), (self._values, values)):
                shape = (self._rows, part.shape[0], self._capacity, part.shape[2])
                blocks.append(torch.zeros(shape, dtype=self._dtype, device=part.device))
        length = keys.shape[1]
        self._keys[layer][first_row : first_row + rows, :, :length] = keys
        self._values[layer][first_row : first_row + rows, :, :length] = values

    def append(
        self, layer: int, lengths: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes one token's keys and values [K, B, D] at each row's length; returns the live rows [B, K, capacity, D]."""
        rows = lengths.shape[0]
        if self._row_index.shape[0] != rows:
            self._row_index = torch.arange(rows, device=lengths.device)
        self._keys[layer][self._row_index, :, lengths] = keys.transpose(0, 1).to(self._dtype)
        self._values[layer][self._row_index, :, lengths] = values.transpose(0, 1).to(self._dtype)
        return self._keys[layer][:rows], self._values[layer][:rows]

    def move(self, source: int, target: int, length: int) -> None:
        """Row `target` becomes a copy of row `source`, whose first `length` positions count."""
        for block in (*self._keys, *self._values):
            block[target, :, :length] = block[source, :, :length]
