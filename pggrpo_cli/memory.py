"""Memory, measured and foreseen."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def peak_memory_gb(device: torch.device) -> float:
    """The accelerator's peak of allocated memory, or the process's peak resident size; in 10⁹ bytes."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device) / 1e9
    return peak_resident_bytes() / 1e9


def peak_resident_bytes() -> int:
    """Of this program. getrusage alone would count, on Linux, what the process was before it became this one: all that its
    parent held when it started it."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def resident_bytes() -> int:
    """What of this process lies in memory now, pages of files that it has mapped included."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def keep_freed_memory() -> bool:
    """Lets the C library keep freed memory instead of giving it back to the kernel; whether it could (glibc only).

    A training step frees and takes the same large blocks again and again; each time the kernel would map and clear them
    page by page, which cost a third of the update's time where it was measured (docs/speed.md).
    """
    import ctypes

    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD, M_MMAP_MAX of malloc.h
    return bool(mallopt(mmap_max, 0)) and bool(mallopt(trim_threshold, 2**31 - 1))
