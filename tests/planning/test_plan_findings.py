"""What is advised where a run does not fit."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest

from pggrpo_cli.planning.memory_estimate import MemoryEstimate
from pggrpo_cli.planning.plan_findings import fits, gigabytes, plan_findings


def plan(part: str, *, beside: int = 0, on_cpu: bool = True) -> Any:
    return SimpleNamespace(
        memory=MemoryEstimate(phases={"load": {part: 3_000}, "update": {part: 5_000, "weights": 1_000}}),
        beside={"2 reward processes": beside}, on_cpu=on_cpu, memory_free=5_000, memory_total=8_000,
        disk=SimpleNamespace(checkpoint=10, peak=30), disk_free=100,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("part", "key"),
    [
        ("activations", "trainer.micro_batch_tokens"),
        ("keys and values", "sampler.max_rows"),
        ("logits", "sampler.max_rows"),
        ("optimizer", "optimizer=adafactor"),
        ("reference", "loss.kl_coef=0"),
        ("reward models", "reward=http"),
    ],
)
def test_advice_is_a_key_that_can_be_typed(part: str, key: str) -> None:
    memory = plan_findings(plan(part))[0]
    assert memory.status == "warning"
    assert re.search(rf"(?<![\w.]){re.escape(key)}(?!\w)", memory.advice)


def test_other_processes_count_where_their_memory_is_the_same() -> None:
    assert [fits(plan("logits", beside=size)) for size in (2_000, 2_001)] == [True, False]
    assert fits(plan("logits", beside=2_001, on_cpu=False))


def test_sizes_in_words() -> None:
    assert (gigabytes(94_000_000), gigabytes(95_000_000)) == ("94.0 MB", "0.10 GB")
