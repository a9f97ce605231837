"""Log-probabilities and entropies from hidden states, in tiles: [tokens, vocabulary] never exists in full.

The one place where log π(token) is computed for training, old, new and reference alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn import functional as F

from pggrpo_cli.compiled.head import CompiledTiles
from pggrpo_cli.compiled.update import library_or_none
from pggrpo_cli.prepared import Product, prepared_product

TILE_ROWS = 2048
TILE_COLUMNS = {"cpu": 512}
TILE_COLUMNS_ELSEWHERE = 16384
"""Tokens and vocabulary entries of the logits that exist at a time. A CPU's tile is 4 MB in float32, near the size of
its second-level caches: each of the passes over it then costs a third of one over main memory (docs/speed.md)."""


@dataclass(frozen=True, slots=True)
class Head:
    """The output head: logits = softcap(scale · (hidden · weightᵀ + bias))."""

    weight: torch.Tensor
    """[V, d]"""
    bias: torch.Tensor | None
    softcap: float | None
    dtype: torch.dtype
    """Of the product; sums over the vocabulary are taken in float32 or wider."""
    scale: float = 1.0
    product: Product | None = None
    """The product with prepared weights, if many calls are to come."""

    def prepared(self) -> Head:
        """The same with detached weights in the dtype of the product."""
        # A bias of −inf forbids a token; −1e30 does too, and 0 · −1e30 is a number.
        bias = None if self.bias is None else self.bias.detach().to(self.dtype).clamp_min(-1e30)
        return replace(self, weight=self.weight.detach().to(self.dtype), bias=bias, product=None)

    def prepared_for_few_rows(self) -> Head:
        """The same for many calls with few rows each, without gradient."""
        return replace(self, product=prepared_product(self.weight, self.bias, self.dtype))

    def columns(self, part: slice) -> Head:
        """The head of these vocabulary entries alone."""
        return replace(self, weight=self.weight[part], bias=None if self.bias is None else self.bias[part])

    def products(self, hidden: torch.Tensor) -> torch.Tensor:
        """hidden [T, d] → hidden · weightᵀ + bias [T, V] in `dtype`."""
        with torch.autocast(hidden.device.type, enabled=False):
            if self.product is not None:
                return self.product(hidden)
            bias = None if self.bias is None else self.bias.to(self.dtype)
            return F.linear(hidden.to(self.dtype), self.weight.to(self.dtype), bias)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """hidden [T, d] → logits [T, V] in float32 or wider, before temperature."""
        logits = self.products(hidden)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if self.scale != 1:
            logits = logits * self.scale
        if self.softcap is not None:
            logits = torch.tanh(logits / self.softcap) * self.softcap
        return logits


def token_logprobs(
    hidden: torch.Tensor, head: Head, targets: torch.Tensor, temperature: float, with_entropy: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """log softmax(logits / temperature)[targets] and the entropies of these distributions.

    hidden [T, d], targets int64 [T] → logprobs [T], entropies [T] or None (nats), float32 or wider, differentiable in
    hidden, weight and bias. With z = logits / temperature, m the largest, Z = Σ exp(z − m):
    logprob = z[target] − m − log Z and H = log Z − Σ exp(z − m)(z − m) / Z, gathered over tiles of the vocabulary. The
    backward computes the logits of a tile again instead of keeping them:
    ∂logprob/∂z = 1[target] − p,  ∂H/∂z = −p (log p + H).
    """
    targets = targets.to(torch.long).contiguous()
    logprobs, entropies = _TokenLogprobs.apply(hidden, head.weight, head.bias, targets, head, temperature, with_entropy)
    return logprobs, entropies if with_entropy else None


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        head: Head,
        temperature: float,
        with_entropy: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        head = head.prepared()
        low = hidden.to(head.dtype)
        wide = torch.promote_types(hidden.dtype, torch.float32)
        log_mass = hidden.new_empty(targets.shape, dtype=wide)
        chosen = hidden.new_empty(targets.shape, dtype=wide)
        entropies = hidden.new_empty(targets.shape if with_entropy else (0,), dtype=wide)
        tiles = _compiled_tiles(head, wide, temperature, hidden.device)
        for rows in _slices(targets.shape[0], TILE_ROWS):
            sums = _Sums(low[rows].shape[0], wide, hidden.device, with_entropy)
            for columns in _column_slices(weight):
                part = head.columns(columns)
                if tiles is None:
                    sums.add(_scaled(part, low[rows], temperature), targets[rows], columns)
                else:
                    sums.add_compiled(tiles, part.products(low[rows]), targets[rows], columns)
            log_mass[rows], chosen[rows] = sums.log_mass, sums.chosen
            if with_entropy:
                entropies[rows] = sums.entropies
        ctx.save_for_backward(low, weight, bias, targets, log_mass, entropies)
        ctx.options = (head.softcap, head.scale, head.dtype, temperature, with_entropy, hidden.dtype, tiles)
        ctx.set_materialize_grads(False)
        return chosen - log_mass, entropies

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        grad_logprobs, grad_entropies = grads
        low, weight, bias, targets, log_mass, entropies = ctx.saved_tensors
        softcap, scale, dtype, temperature, with_entropy, hidden_dtype, tiles = ctx.options
        head = Head(weight, bias, softcap, dtype, scale).prepared()
        grad_hidden = torch.zeros(low.shape, dtype=torch.promote_types(hidden_dtype, torch.float32), device=low.device)
        grad_weight = torch.empty_like(weight) if targets.shape[0] else torch.zeros_like(weight)
        grad_bias = None if bias is None else torch.zeros_like(bias)
        for rows in _slices(targets.shape[0], TILE_ROWS):
            slope_of_entropy = None
            if with_entropy and grad_entropies is not None:
                slope_of_entropy = (grad_entropies[rows, None], entropies[rows, None])
            slope_of_logprob = None if grad_logprobs is None else grad_logprobs[rows, None]
            for columns in _column_slices(weight):
                part = head.columns(columns)
                if tiles is not None:
                    slopes = (slope_of_logprob, slope_of_entropy)
                    grad = tiles.gradient(part.products(low[rows]), targets[rows], columns, log_mass[rows], *slopes)
                else:
                    scaled = _scaled(part, low[rows], temperature)
                    wide = _tile_gradient(
                        scaled,
                        part,
                        temperature,
                        log_mass[rows, None],
                        slope_of_logprob,
                        slope_of_entropy,
                        targets[rows],
                        columns,
                    )
                    if grad_bias is not None:
                        grad_bias[columns] += wide.sum(0).to(grad_bias.dtype)
                    grad = wide.to(dtype)
                grad_hidden[rows] += grad @ part.weight
                share = grad.t() @ low[rows]
                if rows.start == 0:
                    grad_weight[columns] = share
                else:
                    grad_weight[columns] += share
        return grad_hidden.to(hidden_dtype), grad_weight, grad_bias, None, None, None, None


class _Sums:
    """Sums over the vocabulary, gathered tile by tile relative to the largest logit seen so far. All [R]."""

    def __init__(self, rows: int, dtype: torch.dtype, device: torch.device, with_entropy: bool) -> None:
        self._largest = torch.full((rows,), torch.finfo(dtype).min, dtype=dtype, device=device)
        self._mass = torch.zeros(rows, dtype=dtype, device=device)
        self._moment = torch.zeros(rows, dtype=dtype, device=device) if with_entropy else None
        self.chosen = torch.zeros(rows, dtype=dtype, device=device)

    def add(self, scaled: torch.Tensor, targets: torch.Tensor, columns: slice) -> None:
        """scaled [R, columns] (overwritten)."""
        inside, place = _places(targets, columns)
        self.chosen = torch.where(inside, scaled.gather(1, place[:, None]).squeeze(1), self.chosen)
        largest = torch.maximum(self._largest, scaled.amax(1))
        shift = self._largest - largest
        shrink = shift.exp()
        masses = scaled.sub_(largest[:, None]).exp()
        if self._moment is not None:
            moment = torch.where(self._mass > 0, shrink * (self._moment + shift * self._mass), self._moment)
            self._mass = self._mass * shrink + masses.sum(1)
            self._moment = moment + masses.mul_(scaled).sum(1)
        else:
            self._mass = self._mass * shrink + masses.sum(1)
        self._largest = largest

    def add_compiled(self, tiles: CompiledTiles, logits: torch.Tensor, targets: torch.Tensor, columns: slice) -> None:
        """logits [R, columns] as the head's product left them."""
        tiles.add(logits, targets, columns, self._largest, self._mass, self._moment, self.chosen)

    @property
    def log_mass(self) -> torch.Tensor:
        return self._largest + self._mass.log()

    @property
    def entropies(self) -> torch.Tensor:
        assert self._moment is not None
        return self._mass.log() - self._moment / self._mass


def _compiled_tiles(head: Head, wide: torch.dtype, temperature: float, device: torch.device) -> CompiledTiles | None:
    """None where torch computes the tiles: no library, or what head.c does not do."""
    if head.softcap is not None or head.bias is not None or wide != torch.float32:
        return None
    library = library_or_none(head.dtype, device)
    return None if library is None else CompiledTiles(library, head.scale / temperature)


def _scaled(head: Head, low: torch.Tensor, temperature: float) -> torch.Tensor:
    logits = head.logits(low)
    return logits if temperature == 1 else logits.div_(temperature)


def _tile_gradient(
    scaled: torch.Tensor,
    head: Head,
    temperature: float,
    log_mass: torch.Tensor,
    slope_of_logprob: torch.Tensor | None,
    slope_of_entropy: tuple[torch.Tensor, torch.Tensor] | None,
    targets: torch.Tensor,
    columns: slice,
) -> torch.Tensor:
    """Of the logits before softcap and scale; scaled [R, columns] (overwritten)."""
    capped = scaled.clone() if head.softcap is not None else None
    grad = _gradient(scaled.sub_(log_mass), slope_of_logprob, slope_of_entropy)
    if slope_of_logprob is not None:
        _add_at_targets(grad, targets, columns, slope_of_logprob)
    if temperature != 1:
        grad.div_(temperature)
    if capped is not None and head.softcap is not None:
        grad.mul_(1 - (capped * (temperature / head.softcap)).square_())
    if head.scale != 1:
        grad.mul_(head.scale)
    return grad


def _gradient(
    table: torch.Tensor,
    slope_of_logprob: torch.Tensor | None,
    slope_of_entropy: tuple[torch.Tensor, torch.Tensor] | None,
) -> torch.Tensor:
    """table = log p [R, columns] (overwritten) → −p · (∂L/∂logprob + ∂L/∂H · (log p + H)): all but the target's 1."""
    if slope_of_entropy is None:
        probabilities = table.exp_()
        return probabilities.zero_() if slope_of_logprob is None else probabilities.mul_(-slope_of_logprob)
    slope, entropies = slope_of_entropy
    probabilities = table.exp()
    factor = table.add_(entropies).mul_(-slope)
    if slope_of_logprob is not None:
        factor.sub_(slope_of_logprob)
    return probabilities.mul_(factor)


def _add_at_targets(grad: torch.Tensor, targets: torch.Tensor, columns: slice, slope: torch.Tensor) -> None:
    inside, place = _places(targets, columns)
    grad.scatter_add_(1, place[:, None], torch.where(inside[:, None], slope, 0).to(grad.dtype))


def _places(targets: torch.Tensor, columns: slice) -> tuple[torch.Tensor, torch.Tensor]:
    """(whether the target is in these columns, its place in them or 0), [R] each."""
    inside = (targets >= columns.start) & (targets < columns.stop)
    return inside, torch.where(inside, targets - columns.start, 0)


def _slices(length: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, length)) for start in range(0, length, size))


def _column_slices(weight: torch.Tensor) -> Iterator[slice]:
    return _slices(weight.shape[0], TILE_COLUMNS.get(weight.device.type, TILE_COLUMNS_ELSEWHERE))
