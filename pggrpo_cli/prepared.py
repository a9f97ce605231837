"""Linear layers prepared for many small products without gradient: weights cast and laid out once, not at every call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import nn
from torch.nn import functional as F

Product = Callable[[torch.Tensor], torch.Tensor]
"""x [..., d] → x · weightᵀ + bias, in the dtype of the product."""

EXPECTED_ROWS = 32
"""The layout of packed weights is chosen for about so many rows; others are as right, if not as fast."""


def prepared_product(weight: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype) -> Product:
    """The product with these weights as they are now: detached, cast, and on a CPU in oneDNN's own layout.

    Reading a plain weight matrix for 32 rows takes oneDNN half as long again as reading its own layout (docs/speed.md).
    """
    weight = weight.detach().to(dtype)
    bias = None if bias is None else bias.detach().to(dtype)
    if weight.device.type == "cpu" and dtype == torch.bfloat16 and _packs():
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), EXPECTED_ROWS)
        pointwise = torch.ops.mkldnn._linear_pointwise
        return lambda x: pointwise(x.to(dtype), packed, bias, "none", [], "")
    return lambda x: F.linear(x.to(dtype), weight, bias)


@contextmanager
def prepared_linears(module: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Every nn.Linear of `module` computes with weights prepared once, until the context ends."""
    changed: list[nn.Linear] = []
    try:
        for layer in module.modules():
            # A subclass may mean something else, and so may hooks or a forward that somebody else has put there.
            if type(layer) is nn.Linear and "forward" not in vars(layer):
                layer.forward = prepared_product(layer.weight, layer.bias, dtype)  # type: ignore[method-assign, assignment]
                changed.append(layer)
        yield
    finally:
        for layer in changed:
            del layer.forward


@lru_cache(maxsize=1)
def _packs() -> bool:
    """Whether this build of torch packs weights and computes with them what it computes without: asked, not assumed."""
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(size, 64, generator=generator).bfloat16() for size in (5, 48))
    bias = torch.randn(48, generator=generator).bfloat16()
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, EXPECTED_ROWS)
        found = torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
    except (AttributeError, RuntimeError, TypeError):
        return False
    return torch.allclose(found.float(), F.linear(x, weight, bias).float(), atol=0.1)
