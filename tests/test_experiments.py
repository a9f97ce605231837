"""Every experiment=NAME composes and passes the checks; those of maths and sums run, on the tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pggrpo_cli import train
from pggrpo_cli.check import check
from pggrpo_cli.composing import compose
from pggrpo_cli.config import conf_dir
from tests.tracking.fake_library import need

EXPERIMENTS = sorted(file.stem for file in (conf_dir() / "experiment").glob("*.yaml"))
NEEDS = {
    "implicit": [
        "reward.implicit.path=./by-dpo",
        "reward.implicit.reference_path=./before-dpo",
        "data.path=prompts.jsonl",
    ],
    "reward_model": ["reward.reward_model.path=./my-reward-model", "data.path=prompts.jsonl", "data.as_chat=true"],
}
"""What an experiment leaves to the user."""
TINY = ["model=tiny", "trainer.max_steps=2", "trainer.prompts_per_step=2", "sampler.group_size=2", "device=cpu"]
SHORT = [*TINY, "sampler.max_new_tokens=6", "evaluation.every=2", "evaluation.num_prompts=2", "logger=[]"]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_is_whole(name: str) -> None:
    if name.startswith("tune_"):
        need("hydra_plugins.hydra_optuna_sweeper")
    check(compose("train", [f"experiment={name}", *NEEDS.get(name, [])]))


@pytest.mark.parametrize("name", ["maths", "pg_grpo_arithmetic", "grpo_arithmetic"])
def test_experiments_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    train(compose("train", [f"experiment={name}", *SHORT]), run_dir=tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "reward" in line] == [1, 2]
    if name == "maths":
        assert all(line["rewards/math_verify/mean"] is not None for line in lines if "reward" in line)
        samples = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
        assert {tuple(sorted(sample["reward_terms"])) for sample in samples} == {("math_verify", "repetition")}
