"""Memory that ran out, in the words of each device, and work that is tried again in smaller pieces."""

from __future__ import annotations

import re

import torch

_WORDS = re.compile(
    r"DefaultCPUAllocator: (can't|not enough)|not enough memory|out of memory|bad_alloc|_STATUS_ALLOC_FAILED",
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException) -> bool:
    """CUDA has a class for it, a CPU's allocator only a RuntimeError with words of its own."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and _WORDS.search(str(error)) is not None


def first_line(error: BaseException) -> str:
    """What it says: Python's own MemoryError says nothing."""
    return (str(error) or type(error).__name__).splitlines()[0]


def release(device: torch.device) -> None:
    """Gives what torch keeps for later back to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
