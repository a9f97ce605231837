"""What each of several jobs at a time may use of the machine: a GPU, a number of threads. Asks neither torch nor CUDA."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pggrpo_cli import run_directory as runs
from pggrpo_cli.json_file import read_object
from pggrpo_cli.scoring.pool import PROCESSORS, default_workers

GPUS = "CUDA_VISIBLE_DEVICES"
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
"""torch reads the first, numpy one of these by its build, tokenizers the last."""


@dataclass(frozen=True, kw_only=True)
class Shares:
    """The machine, divided."""

    at_a_time: int
    gpus: tuple[str, ...]
    """As CUDA_VISIBLE_DEVICES names them; empty: jobs are not told which."""
    threads: int
    """Of each job."""

    def environment(self, slot: int, run_dir: Path) -> dict[str, str]:
        """The variables of the job in `slot` (0 … at_a_time − 1). One that goes on keeps the number of threads that it began
        with: the last bits of a sum depend on it. What is set already holds."""
        found = {} if not self.gpus else {GPUS: self.gpus[slot % len(self.gpus)]}
        threads = _threads_of(run_dir) or (self.threads if self.at_a_time > 1 else None)
        if threads is not None:
            found |= {name: str(threads) for name in THREADS if not os.environ.get(name)}
        if self.at_a_time > 1:
            found[PROCESSORS] = str(self.threads)
        return found


def shares(wish: int | None, jobs: int, devices: Collection[str]) -> Shares:
    """`wish`: sweep.jobs. `jobs`: how many there are. `devices`: what the key `device` says in them.

    One that names a GPU by its number chooses among all of them: then none is chosen for any.
    """
    gpus = visible_gpus() if set(devices) <= {"auto", "cuda"} else ()
    at_a_time = max(1, min(wish or len(gpus) or 1, jobs))
    return Shares(at_a_time=at_a_time, gpus=gpus, threads=max(1, default_workers() // at_a_time))


def visible_gpus(environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Those that CUDA_VISIBLE_DEVICES names; without it, those that the driver lists."""
    named = environment.get(GPUS)
    if named is not None:
        listed = [one.strip() for one in named.split(",")]
        end = next((place for place, one in enumerate(listed) if one in ("", "-1")), len(listed))
        return tuple(listed[:end])  # CUDA stops at the first that is none
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    count = sum(line.startswith("GPU ") for line in done.stdout.splitlines()) if done.returncode == 0 else 0
    return tuple(map(str, range(count)))


def _threads_of(run_dir: Path) -> int | None:
    """Of the last session of a run that left a checkpoint."""
    threads: Any = read_object(run_dir / runs.ENVIRONMENT).get("threads")
    found = threads.get("torch") if isinstance(threads, dict) else None
    return found if isinstance(found, int) and found > 0 and runs.has_checkpoints(run_dir) else None
