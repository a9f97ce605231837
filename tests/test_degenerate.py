"""Steps in which there is nothing to learn from: never 0/0, never a NaN in the weights, and it is said."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from pggrpo_cli.assemble import run_training
from pggrpo_cli.interruption import Interruption
from tests.test_exact_resume import config

CASES: dict[str, tuple[list[str], dict[str, float]]] = {
    "every completion truncated and masked": (
        ["sampler.max_new_tokens=2", "trainer.mask_truncated=true"],
        {"completions/clipped_ratio": 1.0},
    ),
    "every completion one token": (["sampler.max_new_tokens=1"], {"completions/mean_length": 1.0}),
    "every reward equal": (["sampler.max_new_tokens=4", "reward=format"], {"frac_reward_zero_std": 1.0}),
    "every reward equal, none left": (
        ["sampler.max_new_tokens=4", "reward=format", "trainer.filter_constant_groups=true", "trainer.max_refills=1"],
        {"frac_reward_zero_std": 1.0},
    ),
    "no pair": (["sampler.max_new_tokens=4", "reward=format", "loss=dpo"], {"frac_reward_zero_std": 1.0}),
    "a single token wins always": (["sampler.max_new_tokens=4", "sampler.top_k=1"], {"frac_reward_zero_std": 1.0}),
}  # fmt: skip
LOSSES = ["pg_grpo", "grpo", "grpo_token", "dapo", "dr_grpo", "gspo", "cispo"]


@pytest.mark.fault("T23", "T24")
@pytest.mark.parametrize("advantage", ["group_mean", "group_normalized"])
@pytest.mark.parametrize("case", CASES)
def test_nothing_to_learn_from(case: str, advantage: str, tmp_path: Path) -> None:
    overrides, expected = CASES[case]
    loss = [] if any(one.startswith("loss=") for one in overrides) else ["loss=pg_grpo"]
    check(tmp_path, [*loss, *overrides, f"advantage={advantage}"], expected)


@pytest.mark.fault("T23", "T24")
@pytest.mark.parametrize("loss", LOSSES)
def test_no_loss_divides_by_nothing(loss: str, tmp_path: Path) -> None:
    overrides = ["sampler.max_new_tokens=2", "trainer.mask_truncated=true", f"loss={loss}"]
    check(tmp_path, overrides, {"completions/clipped_ratio": 1.0})


def check(run: Path, overrides: list[str], expected: dict[str, float]) -> None:
    run_training(config([*overrides, "evaluation.every=null"], 2), run, None, Interruption())
    lines: list[dict[str, Any]] = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    for line in lines:
        assert {name: line[name] for name in expected} == expected
        assert line.get("updates/skipped", 0) == 0
        assert None not in line.values(), line
        assert all(math.isfinite(value) for value in line.values())
    weights = load_file(run / "checkpoints" / "step-000002" / "model.safetensors")
    assert all(bool(weight.isfinite().all()) for weight in weights.values())
