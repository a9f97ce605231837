"""Training on programs that are run: the experiment, and right and wrong programs through the whole loop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import run

FAST = ["debug=fast", "logger=[]", "hydra.run.dir=run", "sampler.max_new_tokens=8"]


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_the_experiment(tmp_path: Path) -> None:
    done = run(["train", "experiment=code_tests", *FAST, "trainer.max_steps=1"], tmp_path)
    assert done.returncode == 0, done.stderr
    metrics = [line for line in lines(tmp_path / "run" / "metrics.jsonl") if "rewards/code_tests/mean" in line]
    assert metrics
    assert all(line["rewards/code_tests/mean"] == 0.0 and line.get("reward/errors", 0) == 0 for line in metrics)


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
