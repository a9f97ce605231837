"""What this machine can do at most, and the least time that a step's arithmetic takes at that rate.

python benchmarks/probes.py
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any

import torch

ADAM_BYTES = 28
"""Read weight, gradient and two moments, write weight and moments: 7 float32 a parameter."""


@dataclass(frozen=True, slots=True)
class Rates:
    product: float
    """FLOP/s of a large matrix product."""
    copy: float
    """Bytes/s of a large copy, read and written."""


def measure(dtype: torch.dtype, device: torch.device | None = None) -> Rates:
    """On the CPU, or on `device`, whose work is waited for."""
    device = device or torch.device("cpu")
    size = 2048 if device.type == "cpu" else 8192
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    source = torch.zeros(64 << 20, device=device)
    target = torch.empty_like(source)
    product = _median(lambda: _finished(torch.mm(left, right)))
    copied = _median(lambda: _finished(target.copy_(source)))
    return Rates(product=2 * size**3 / product, copy=2 * source.numel() * source.element_size() / copied)


def _finished(result: torch.Tensor) -> None:
    if result.is_cuda:
        torch.cuda.synchronize(result.device)


def _median(call: Any) -> float:
    times = []
    for _ in range(9):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times[2:])


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a step goes through."""

    body: int
    """Weights of the matrices of the layers."""
    head: int
    parameters: int
    prompts: int
    prompt_tokens: float
    """Of one prompt."""
    completions: int
    completion_tokens: float
    """Of all completions."""
    decode_steps: float
    """The longest completion."""
    element: int
    """Bytes of a weight in the product's dtype."""


def floor(sizes: Sizes, rates: Rates) -> dict[str, float]:
    """Seconds of each phase if nothing but products and the reading of weights took time.

    Prompts once a group; a decode step costs its products or the reading of all weights, whichever is longer; backward
    is twice forward; element-wise work, attention and norms are free. So nobody reaches it.
    """
    packed = sizes.prompts * sizes.prompt_tokens + sizes.completion_tokens
    forward = 2 * (sizes.body * packed + sizes.head * sizes.completion_tokens) / rates.product
    prefill = 2 * sizes.body * sizes.prompts * sizes.prompt_tokens / rates.product
    weights = sizes.body + sizes.head
    decode = 2 * weights * sizes.completion_tokens / rates.product
    reading = sizes.decode_steps * weights * sizes.element / rates.copy
    parts = {
        "rollout": prefill + max(decode, reading),
        "reference": forward,
        "update": 3 * forward,
        "optimizer": ADAM_BYTES * sizes.parameters / rates.copy,
    }
    return {**parts, "step": sum(parts.values())}


if __name__ == "__main__":
    for kind in (torch.bfloat16, torch.float32):
        found = measure(kind)
        print(f"{kind}: product {found.product / 1e9:.0f} GFLOP/s, copy {found.copy / 1e9:.1f} GB/s")
