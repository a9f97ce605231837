"""Rows as verl prepares them, trained on for a step: parquet with nested columns, and the same as JSON lines."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from pggrpo_cli.assemble import run_training
from pggrpo_cli.interruption import Interruption
from tests.test_exact_resume import config

ROWS = [
    {
        "data_source": "openai/gsm8k",
        "prompt": [{"role": "system", "content": "Add."}, {"role": "user", "content": f"{a} + 1"}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": str(a + 1)},
        "extra_info": {"split": "train", "index": a},
    }
    for a in range(12)
]
REWARD = """
import json

def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    assert data_source == "openai/gsm8k"
    assert int(ground_truth) == extra_info["index"] + 1
    return {"score": len(solution_str) / 8, "truth": ground_truth}
"""
LIKE_VERL = ["reward=python", "reward.python.path=mine.py", "reward.python.name=compute_score"]
EXACT = ["reward=exact_answer", "data.columns.answer=reward_model.ground_truth"]


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("train.parquet", [*LIKE_VERL, "data.streaming=true"]),
        ("train.parquet", EXACT),
        ("train.jsonl", LIKE_VERL),
        ("train.jsonl", [*EXACT, "data.streaming=true"]),
    ],
)
def test_a_step_on_verls_rows(file: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(REWARD)
    if file.endswith("parquet"):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), file)
    else:
        Path(file).write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    data = "hf" if file.endswith("parquet") else "jsonl"
    nested = [word.replace("data.columns", "+data.columns") for word in words]  # composed without our own command line
    shared = [
        f"data={data}",
        f"data.path={file}",
        "data.eval_size=2",
        "sampler.max_new_tokens=8",
        "evaluation.every=null",
    ]
    metrics = run_training(config([*shared, *nested], 1), tmp_path, None, Interruption())
    samples = [json.loads(line) for line in Path("samples.jsonl").read_text().splitlines()]
    assert len(samples) == 16
    assert 0 <= metrics["reward"] <= 1
    if words[:3] == LIKE_VERL:
        for sample in samples:
            assert sample["reward_terms"]["python"] == len(sample["completion"]) / 8
