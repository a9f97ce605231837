"""What rewards that are models share: where they compute, in what, what they take and what the plan says of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from pggrpo_cli.devices import resolve_device
from pggrpo_cli.model_outline import model_config, outline_of_folder, outline_of_hub
from pggrpo_cli.planning.model_shape import ModelShape
from pggrpo_cli.policy import resolve_compute_dtype
from pggrpo_cli.types import RewardContext
from pggrpo_cli.weights import is_local


def placed(dtype: str, device: str | None, context: RewardContext, key: str) -> tuple[torch.dtype, torch.device]:
    """`dtype` auto: bfloat16 where the hardware multiplies it; `device` None: the run's. `key`: the reward's."""
    found = resolve_device(context.device if device is None else device, f"{key}.device")
    return resolve_compute_dtype(dtype, found), found


def foreseen(dtype: str, device: str | None, run_device: torch.device, key: str) -> torch.dtype | None:
    """The dtype that `placed` will find; None if the model will lie elsewhere than the run."""
    found = run_device if device is None else resolve_device(device, f"{key}.device")
    return resolve_compute_dtype(dtype, found) if found.type == run_device.type else None


def classifier_bytes(path: str, revision: str | None, dtype: torch.dtype, key: str) -> int:
    """Of the weights of a sequence classifier, from its configuration alone. Raises ConfigError starting with `key`."""
    from transformers import AutoModelForSequenceClassification

    config = model_config(path, revision, key)
    with torch.device("meta"):
        module = AutoModelForSequenceClassification.from_config(config, dtype=dtype)
    return sum(parameter.numel() * parameter.element_size() for parameter in module.parameters())


def frozen_bytes(path: str, key: str, dtype: torch.dtype) -> int:
    """Of the weights of a causal model as reference.frozen leaves them: linear layers in `dtype`, the rest in float32."""
    local = Path(path).expanduser()
    found = outline_of_folder(local, key) if is_local(path) else outline_of_hub(path, None, key)
    shape = ModelShape.of(found.module())
    return shape.linear * dtype.itemsize + (shape.parameters - shape.linear) * torch.float32.itemsize


def size(*modules: Any) -> str:
    """Their weights, for the plan: "12M parameters, 0.05 GB"."""
    parameters = [parameter for module in modules for parameter in module.parameters()]
    number = sum(parameter.numel() for parameter in parameters) / 1e6
    gigabytes = sum(parameter.numel() * parameter.element_size() for parameter in parameters) / 1e9
    return f"{number:.3g}M parameters, {gigabytes:.2g} GB"


def context_of(config: Any, tokenizer: Any) -> int:
    """Tokens that a model reads: what its positions reach, or what its tokenizer knows."""
    positions = getattr(config.get_text_config(), "max_position_embeddings", None) or 1 << 30
    return min(int(positions), int(tokenizer.model_max_length))
