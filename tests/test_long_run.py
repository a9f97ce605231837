"""Hundreds of steps leave nothing behind: no memory, no files, no threads, no children."""

from __future__ import annotations

import gc
import multiprocessing
import os
import statistics
import threading
from pathlib import Path
from typing import Any

import pytest

from pggrpo_cli.assemble import run_training
from pggrpo_cli.interruption import Interruption
from pggrpo_cli.trainer import Trainer
from tests.test_exact_resume import config

STEPS = 300
PAGE = os.sysconf("SC_PAGE_SIZE")
Seen = list[tuple[int, int, int]]
"""Bytes of memory, open files and threads after each step."""


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def children() -> list[str]:
    return [path.read_text() for path in Path("/proc/self/task").glob("*/children") if path.read_text().strip()]


def train(folder: Path, leaks: bool) -> tuple[Seen, list[str]]:
    """What a run of its own process holds after each step, and its children at the end."""
    seen: Seen = []
    kept: list[bytes] = []
    record = Trainer._record

    def noted(trainer: Trainer, step: int, metrics: dict[str, float]) -> None:
        record(trainer, step, metrics)
        if leaks:
            kept.append(os.urandom(200_000))
        gc.collect()
        seen.append((resident(), len(os.listdir("/proc/self/fd")), threading.active_count()))

    Trainer._record = noted  # type: ignore[method-assign]
    overrides: list[Any] = ["loss=pg_grpo", "sampler.max_new_tokens=6", "evaluation.every=50", "checkpoint.every=10"]
    run_training(config([*overrides, "checkpoint.keep_last=1"], STEPS), folder, None, Interruption())
    return seen, children()


@pytest.mark.slow
@pytest.mark.fault("T40")
@pytest.mark.parametrize("leaks", [False, True], ids=["", "a leak is noticed"])
def test_nothing_grows(leaks: bool, tmp_path: Path) -> None:
    # A fresh process: in one that has freed a gigabyte, a leak fills the holes and nothing seems to grow.
    with multiprocessing.get_context("spawn").Pool(1) as process:
        seen, left = process.apply(train, (tmp_path, leaks))
    assert len(seen) >= STEPS
    early, late = seen[100:150], seen[-50:]
    grown = statistics.median(one[0] for one in late) - statistics.median(one[0] for one in early)
    assert (grown < 8e6) != leaks, f"{grown / 1e6:.1f} MB"
    if not leaks:
        assert max(one[1] for one in late) <= max(one[1] for one in early)
        assert late[-1][2] == early[0][2]
        assert left == []
