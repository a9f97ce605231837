"""The output head's passes over a tile of logits by head.c."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class CompiledTiles:
    """z = factor · logits. Tiles [R, columns] are contiguous and in the library's dtype, everything else [R] float32."""

    library: ctypes.CDLL
    factor: float

    def add(
        self,
        logits: torch.Tensor,
        targets: torch.Tensor,
        columns: slice,
        largest: torch.Tensor,
        mass: torch.Tensor,
        moment: torch.Tensor | None,
        chosen: torch.Tensor,
    ) -> None:
        """The tile's share of the sums relative to the largest logit seen so far, and the targets' logits, in place."""
        self.library.head_sums(
            logits.data_ptr(), *logits.shape, columns.start, targets.data_ptr(), self.factor,
            largest.data_ptr(), mass.data_ptr(), None if moment is None else moment.data_ptr(), chosen.data_ptr(),
            torch.get_num_threads(),
        )  # fmt: skip

    def gradient(
        self,
        logits: torch.Tensor,
        targets: torch.Tensor,
        columns: slice,
        log_mass: torch.Tensor,
        slope_of_logprob: torch.Tensor | None,
        slope_of_entropy: tuple[torch.Tensor, torch.Tensor] | None,
    ) -> torch.Tensor:
        """The tile's gradient in place of `logits`. `slope_of_entropy`: the gradient of the entropies, and these."""
        slope, entropies = slope_of_entropy or (None, None)
        parts = [
            None if part is None else part.to(torch.float32).contiguous()
            for part in (log_mass, slope_of_logprob, entropies, slope)
        ]
        self.library.head_gradient(
            logits.data_ptr(), *logits.shape, columns.start, targets.data_ptr(), self.factor,
            *(None if part is None else part.data_ptr() for part in parts), torch.get_num_threads(),
        )  # fmt: skip
        return logits
