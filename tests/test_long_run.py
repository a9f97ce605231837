"""Hundreds of steps leave nothing behind: no memory, no files, no threads, no children."""

from __future__ import annotations

import gc
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


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def children() -> list[str]:
    return [path.read_text() for path in Path("/proc/self/task").glob("*/children") if path.read_text().strip()]


@pytest.mark.slow
@pytest.mark.fault("T40")
@pytest.mark.parametrize("leaks", [False, True], ids=["", "a leak is noticed"])
def test_nothing_grows(leaks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int, int]] = []
    kept: list[bytes] = []
    record = Trainer._record

    def noted(trainer: Trainer, step: int, metrics: dict[str, float]) -> None:
        record(trainer, step, metrics)
        if leaks:
            kept.append(os.urandom(200_000))
        gc.collect()
        seen.append((resident(), len(os.listdir("/proc/self/fd")), threading.active_count()))

    monkeypatch.setattr(Trainer, "_record", noted)
    overrides: list[Any] = ["loss=pg_grpo", "sampler.max_new_tokens=6", "evaluation.every=50", "checkpoint.every=10"]
    run_training(config([*overrides, "checkpoint.keep_last=1"], STEPS), tmp_path, None, Interruption())
    assert len(seen) >= STEPS
    early, late = seen[100:150], seen[-50:]
    grown = statistics.median(one[0] for one in late) - statistics.median(one[0] for one in early)
    assert (grown < 8e6) != leaks, f"{grown / 1e6:.1f} MB"
    if not leaks:
        assert max(one[1] for one in late) <= max(one[1] for one in early)
        assert late[-1][2] == early[0][2]
        assert children() == []
