"""Where it computes, and what must be set there before anything else."""

from __future__ import annotations

import os

import torch

from pggrpo_cli.errors import ConfigError
from pggrpo_cli.memory import keep_freed_memory


def resolve_device(name: str, key: str = "device") -> torch.device:
    """auto: the first CUDA device, else the CPU. `key` is what the name was given for."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"`{key}`: {name!r} is no device; allowed are auto, cpu, cuda, cuda:<number>.") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"`{key}`: {name!r} is not there: torch sees {torch.cuda.device_count()} CUDA devices. Use {key}=auto."
        )
    return device


def prepare_device(device: torch.device) -> None:
    """On a CPU freed memory is kept; on a GPU sums are taken in a fixed order.

    There, gathered gradients would be added in any order unless told otherwise, and a resume would not be exact.
    """
    if device.type == "cpu":
        keep_freed_memory()
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
