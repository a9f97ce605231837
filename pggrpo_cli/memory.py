"""Memory, measured and foreseen."""

from __future__ import annotations

import sys

import torch


def peak_memory_gb(device: torch.device) -> float:
    """The accelerator's peak of allocated memory, or the process's peak resident size; in 10⁹ bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 if sys.platform == "darwin" else peak * 1024 / 1e9
