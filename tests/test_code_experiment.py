"""Training on programs that are run: the experiment, and right and wrong programs through the whole loop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pggrpo_cli import config as schema
from pggrpo_cli.composing import compose
from pggrpo_cli.instantiate import component
from pggrpo_cli.scoring.scorer import open_scorer
from pggrpo_cli.types import RewardContext, Sample
from tests.command_line import run

FAST = ["debug=fast", "logger=[]", "hydra.run.dir=run", "sampler.max_new_tokens=8"]


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.slow
def test_the_experiment(tmp_path: Path) -> None:
    done = run(["train", "experiment=code_tests", *FAST, "trainer.max_steps=1"], tmp_path)
    assert done.returncode == 0, done.stderr
    metrics = [line for line in lines(tmp_path / "run" / "metrics.jsonl") if "rewards/code_tests/mean" in line]
    assert metrics
    assert all(line["rewards/code_tests/mean"] == 0.0 and line.get("reward/errors", 0) == 0 for line in metrics)


PROGRAMS = {
    "add(a, b)": ("a + b", "a"),
    "is_even(x)": ("x % 2 == 0", "None"),
    "backwards(numbers)": ("numbers[::-1]", "numbers[:1]"),
    "greet(name)": ("'Hello, ' + name", "'Hello'"),
    "times_5(x)": ("5 * x", "x + 51"),
}
"""Of some tasks of the experiment: what a right program returns, and a wrong one."""


def test_the_experiment_s_reward_tells_right_from_wrong() -> None:
    """A random model writes no programs, so these are put to the reward of the composed experiment, on its own rows."""
    values = schema.plain(compose("train", ["experiment=code_tests"]))
    config = schema.build(values)
    dataset = component(config.data, "data").load(config.seed)
    rows = {row.columns["signature"]: row for row in [*dataset.train, *dataset.evaluation]}
    samples = [
        Sample(
            prompt="p",
            completion=f"Here it is:\n```python\ndef {signature}:\n    return {result}\n```",
            completion_ids=[0],
            finish_reason="stop",
            columns=rows[signature].columns,
        )
        for signature, results in PROGRAMS.items()
        for result in results
    ]
    with open_scorer(config, RewardContext(run_dir=None, device="cpu", seed=config.seed)) as scorer:
        scored = scorer.score(samples)
    assert scored.errors == 0
    assert scored.rewards == [1.0, 0.0] * len(PROGRAMS)


@pytest.mark.slow
def test_right_and_wrong_programs(tmp_path: Path) -> None:
    """Offline, because a random model writes no programs: chosen ones pass all tests, rejected ones half of them."""
    rows = [
        {
            "prompt": f"Add {n}.",
            "chosen": f"```python\ndef f(x):\n    return x + {n}\n```",
            "rejected": f"def f(x):\n    return {n + 1}",
            "tests": [f"assert f(1) == {n + 1}", f"assert abs(f(-5)) == abs({n - 5})"],
        }
        for n in (4, 6)
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = ["data=preference_jsonl", "data.path=pairs.jsonl", "loss=dpo", "reward=[preference,code_tests]"]
    fast = [one for one in FAST if "max_new_tokens" not in one]
    done = run(["train", *data, *fast, "trainer.max_steps=1", "evaluation.every=null"], tmp_path)
    assert done.returncode == 0, done.stderr
    (step,) = [line for line in lines(tmp_path / "run" / "metrics.jsonl") if "rewards/code_tests/mean" in line]
    assert step["rewards/code_tests/mean"] == pytest.approx(0.75)
