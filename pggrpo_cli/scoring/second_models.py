"""What rewards that are models share: where they compute, in what, and what the plan says of them."""

from __future__ import annotations

from typing import Any

import torch

from pggrpo_cli.devices import resolve_device
from pggrpo_cli.policy import resolve_compute_dtype
from pggrpo_cli.types import RewardContext


def placed(dtype: str, device: str | None, context: RewardContext, key: str) -> tuple[torch.dtype, torch.device]:
    """`dtype` auto: bfloat16 where the hardware multiplies it; `device` None: the run's. `key`: the reward's."""
    found = resolve_device(context.device if device is None else device, f"{key}.device")
    return resolve_compute_dtype(dtype, found), found


def size(*modules: Any) -> str:
    """Their weights, for the plan: "12M parameters, 0.05 GB"."""
    parameters = [parameter for module in modules for parameter in module.parameters()]
    number = sum(parameter.numel() for parameter in parameters) / 1e6
    gigabytes = sum(parameter.numel() * parameter.element_size() for parameter in parameters) / 1e9
    return f"{number:.3g}M parameters, {gigabytes:.2g} GB beside the memory of the plan"


def context_of(config: Any, tokenizer: Any) -> int:
    """Tokens that a model reads: what its positions reach, or what its tokenizer knows."""
    positions = getattr(config.get_text_config(), "max_position_embeddings", None) or 1 << 30
    return min(int(positions), int(tokenizer.model_max_length))
