"""Log-probabilities and entropies from hidden states, in chunks: [tokens, vocabulary] never exists in full.

The one place where log π(token) is computed for training, old, new and reference alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

CHUNK_TOKENS = 512
"""Rows of logits that exist at a time: 100 MB for a vocabulary of 49,152 in float32."""


@dataclass(frozen=True, slots=True)
class Head:
    """The output head: logits = softcap(hidden · weightᵀ + bias)."""

    weight: torch.Tensor
    """[V, d]"""
    bias: torch.Tensor | None
    softcap: float | None
    dtype: torch.dtype
    """Of the product; sums over the vocabulary are taken in float32 or wider."""

    def prepared(self) -> Head:
        """The same with detached weights in the dtype of the product: for many calls without gradient."""
        bias = None if self.bias is None else self.bias.detach().to(self.dtype)
        return Head(self.weight.detach().to(self.dtype), bias, self.softcap, self.dtype)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """hidden [T, d] → logits [T, V] in float32 or wider, before temperature."""
        bias = None if self.bias is None else self.bias.to(self.dtype)
        with torch.autocast(hidden.device.type, enabled=False):
            logits = F.linear(hidden.to(self.dtype), self.weight.to(self.dtype), bias)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if self.softcap is not None:
            logits = torch.tanh(logits / self.softcap) * self.softcap
        return logits


def token_logprobs(
    hidden: torch.Tensor, head: Head, targets: torch.Tensor, temperature: float, with_entropy: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """log softmax(logits / temperature)[targets] and the entropies of these distributions.

    hidden [T, d], targets int64 [T] → logprobs [T], entropies [T] or None (nats), float32 or wider, differentiable in
    hidden, weight and bias. The backward computes the logits of a chunk again instead of keeping them:
    ∂logprob_t/∂z = (1[target] − p) / temperature,  ∂H/∂z = −p (log p + H) / temperature.
    """
    logprobs, entropies = _TokenLogprobs.apply(
        hidden, head.weight, head.bias, targets, head.softcap, head.dtype, temperature, with_entropy
    )
    return logprobs, entropies if with_entropy else None


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        softcap: float | None,
        dtype: torch.dtype,
        temperature: float,
        with_entropy: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        head = Head(weight, bias, softcap, dtype).prepared()
        wide = torch.promote_types(hidden.dtype, torch.float32)
        logprobs = hidden.new_empty(targets.shape, dtype=wide)
        entropies = hidden.new_empty(targets.shape if with_entropy else (0,), dtype=wide)
        for part in _chunks(targets.shape[0]):
            # log_softmax, not logsumexp, which takes four times as long on a CPU.
            table = head.logits(hidden[part]).div_(temperature).log_softmax(-1)
            logprobs[part] = table.gather(1, targets[part, None]).squeeze(1)
            if with_entropy:
                entropies[part] = -(table.exp() * table).sum(-1)
        ctx.save_for_backward(hidden, weight, bias, targets, entropies)
        ctx.options = (softcap, dtype, temperature, with_entropy)
        ctx.set_materialize_grads(False)
        return logprobs, entropies

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        grad_logprobs, grad_entropies = grads
        hidden, weight, bias, targets, entropies = ctx.saved_tensors
        softcap, dtype, temperature, with_entropy = ctx.options
        head = Head(weight, bias, softcap, dtype).prepared()
        grad_hidden = torch.zeros_like(hidden)
        grad_weight = torch.zeros_like(weight)
        grad_bias = None if bias is None else torch.zeros_like(bias)
        for part in _chunks(targets.shape[0]):
            raw = head.logits(hidden[part])
            scaled = raw if temperature == 1 else raw / temperature
            grad = scaled.softmax(-1)
            slope = None
            if with_entropy and grad_entropies is not None:
                slope = scaled.log_softmax(-1).add_(entropies[part, None])
                slope.mul_(grad).mul_(-grad_entropies[part, None])
            if grad_logprobs is None:
                grad.zero_()
            else:
                weights = grad_logprobs[part, None]
                grad.mul_(-weights).scatter_add_(1, targets[part, None], weights.to(grad.dtype))
            if slope is not None:
                grad.add_(slope)
            if temperature != 1:
                grad.div_(temperature)
            if softcap is not None:
                grad.mul_(1 - (raw / softcap).square())
            low = grad.to(dtype)
            grad_hidden[part] = (low @ head.weight).to(hidden.dtype)
            grad_weight += (low.t() @ hidden[part].to(dtype)).to(weight.dtype)
            if grad_bias is not None:
                grad_bias += grad.sum(0).to(grad_bias.dtype)
        return grad_hidden, grad_weight, grad_bias, None, None, None, None, None


def _chunks(length: int) -> list[slice]:
    return [slice(start, min(start + CHUNK_TOKENS, length)) for start in range(0, length, CHUNK_TOKENS)]
