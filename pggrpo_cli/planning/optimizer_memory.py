"""What an optimizer keeps of each parameter, and holds while it steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from pggrpo_cli.optimizer.muon import NOT_A_MATRIX


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerMemory:
    kept: int
    """Bytes of its state, once it has stepped."""
    working: int
    """Bytes that its step holds beside that."""


def optimizer_memory(node: Mapping[str, Any], parameters: Iterable[tuple[str, torch.Tensor]]) -> OptimizerMemory:
    """Of the node `optimizer`. One that is not known is taken to keep two numbers a weight, as Adam does."""
    named = list(parameters)
    name = str(node["_target_"]).rpartition(".")[2]
    count = {"SGD": _sgd, "Adafactor": _adafactor, "Muon": _muon}.get(name, _adam)
    kept = sum(count(node, key, parameter) * parameter.element_size() for key, parameter in named)
    # A fused kernel goes through a parameter once; others make a few tensors of its size on the way.
    fused = bool(node.get("fused"))
    largest = max(parameter.numel() * parameter.element_size() for _, parameter in named)
    return OptimizerMemory(kept=kept, working=0 if fused else 3 * largest)


def _adam(node: Mapping[str, Any], name: str, parameter: torch.Tensor) -> int:
    return (3 if node.get("amsgrad") else 2) * parameter.numel()


def _sgd(node: Mapping[str, Any], name: str, parameter: torch.Tensor) -> int:
    return parameter.numel() if node.get("momentum") else 0


def _adafactor(node: Mapping[str, Any], name: str, parameter: torch.Tensor) -> int:
    """A row and a column of each matrix; vectors whole."""
    if parameter.ndim < 2:
        return parameter.numel()
    return parameter.numel() // parameter.shape[-1] + parameter.numel() // parameter.shape[-2]


def _muon(node: Mapping[str, Any], name: str, parameter: torch.Tensor) -> int:
    matrix = parameter.ndim == 2 and not NOT_A_MATRIX.search(name)
    return (1 if matrix else 2) * parameter.numel()
