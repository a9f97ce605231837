"""pggrpo's side of the comparisons: the command line that a user would type, and the times that its metrics.jsonl holds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from workloads import (
    DPO_BETA,
    KL_COEF,
    LEARNING_RATE,
    WARM_UP_STEPS,
    PairWorkload,
    Workload,
    folder_for,
    model_folder,
    pairs,
    questions,
)

QUIET = ["data.eval_size=0", "evaluation.every=null", "checkpoint.every=null", "checkpoint.keep_best=null"]


def grpo(workload: Workload, steps: int, scratch: Path) -> list[dict[str, float]]:
    """Seconds by part of each step after the warm-up."""
    from transformers import AutoTokenizer

    folder = folder_for(workload, scratch)
    rows = questions(workload, steps + 1, AutoTokenizer.from_pretrained(folder))
    data = _write(scratch / "questions.jsonl", [{**row, "prompt": _said("user", row["prompt"])} for row in rows])
    return _train(
        [
            "data=jsonl",
            f"data.path={data}",
            f"model.path={folder}",
            "reward=python",
            f"reward.python.path={Path(__file__).with_name('workloads.py')}",
            "reward.python.name=correct",
            "loss=grpo_token",
            f"loss.kl_coef={KL_COEF}",
            "advantage=group_normalized",
            f"trainer.prompts_per_step={workload.prompts}",
            f"sampler.group_size={workload.group_size}",
            f"sampler.max_new_tokens={workload.tokens}",
            f"model.compute_dtype={workload.dtype}",
        ],
        steps,
        scratch,
        workload.prompts * workload.group_size,
    )


def dpo(workload: PairWorkload, steps: int, scratch: Path) -> list[dict[str, float]]:
    from transformers import AutoTokenizer

    roles = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
    rows = pairs(workload, steps, AutoTokenizer.from_pretrained(model_folder()))
    data = _write(
        scratch / "pairs.jsonl", [{key: _said(role, row[key]) for key, role in roles.items()} for row in rows]
    )
    return _train(
        [
            "data=preference_jsonl",
            f"data.path={data}",
            f"model.path={model_folder()}",
            "sampler=offline",
            "reward=preference",
            "pairing=dataset",
            "loss=dpo",
            f"loss.beta={DPO_BETA}",
            f"trainer.prompts_per_step={workload.pairs}",
            f"model.compute_dtype={workload.dtype}",
        ],
        steps,
        scratch,
        2 * workload.pairs,
    )


def _train(overrides: list[str], steps: int, scratch: Path, completions: int) -> list[dict[str, float]]:
    run = scratch / "run"
    shared = [
        "model=hf",
        "self_check.enabled=false",
        f"trainer.max_steps={steps}",
        f"optimizer.lr={LEARNING_RATE}",
        "scheduler=constant",
        f"hydra.run.dir={run}",
    ]
    command = [sys.executable, "-m", "pggrpo_cli", "train", *overrides, *QUIET, *shared]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [_parts(line, completions) for line in lines if line["step"] > WARM_UP_STEPS]


def _parts(line: dict[str, Any], completions: int) -> dict[str, float]:
    apart = line.get("time/reference", 0.0) + line["time/optimizer"]
    return {
        "step": line["step_time"],
        "rollout": line["time/rollout"],
        "reference": line.get("time/reference", 0.0),
        "update": line["time/update"] - apart,
        "optimizer": line["time/optimizer"],
        "longest": line["completions/max_length"],
        "tokens": line["completions/mean_length"] * completions,
        "memory": line["memory/peak_gb"],
    }


def _said(role: str, text: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
