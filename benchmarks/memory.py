"""How near the plan's memory is to what runs take: estimate against measured peak, a fresh process each.

SmolLM2-135M whose completions never end early, and the tiny model, two steps each. Measured is the largest resident
size that the kernel saw (getrusage). Prints a table and writes benchmarks/memory.json, of which results_page.py makes the
table of docs/memory.md.

    python benchmarks/memory.py [--only NAME]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from workloads import PairWorkload, Workload, folder_for, machine, pairs

STEPS = ["trainer.max_steps=2", "self_check.enabled=false", "logger=[]", "optimizer.lr=1e-9"]
NO_EVALUATION = ["evaluation.every=null", "checkpoint.keep_best=null"]
W1 = ["trainer.prompts_per_step=4", "sampler.group_size=8", "sampler.max_new_tokens=64", *NO_EVALUATION]
WORK: dict[str, list[str]] = {
    "tiny": ["model=tiny", *W1],
    "bfloat16": ["model.compute_dtype=bfloat16", *W1],
    "float32": ["model.compute_dtype=float32", *W1],
    "no reference": ["loss.kl_coef=0", "trainer.skip_zero_advantages=false", *W1],
    "one small group": [
        "trainer.prompts_per_step=1", "sampler.group_size=4", "sampler.max_new_tokens=16", *NO_EVALUATION,
    ],
    "long completions": [
        "trainer.prompts_per_step=2", "sampler.group_size=4", "sampler.max_new_tokens=384", *NO_EVALUATION,
    ],
    "small micro-batches": ["trainer.micro_batch_tokens=600", *W1],
    "gradient checkpointing": ["model.gradient_checkpointing=true", *W1],
    "bfloat16 weights": ["model.weight_dtype=bfloat16", *W1],
    "sgd": ["optimizer=sgd", "optimizer.lr=1e-9", *W1],
    "large evaluation": [
        "trainer.prompts_per_step=1", "sampler.group_size=2", "sampler.max_new_tokens=64", "evaluation.every=2",
        "evaluation.num_prompts=200", "checkpoint.keep_best=null",
    ],
    "dpo": ["data=preference_jsonl", "loss=dpo", "trainer.prompts_per_step=8", *NO_EVALUATION],
}  # fmt: skip


def overrides(name: str, scratch: Path) -> list[str]:
    """The command line after `pggrpo plan` or `pggrpo train`, with its data and its model."""
    words = [*STEPS, *WORK[name], f"hydra.run.dir={scratch / 'run'}"]
    if "model=tiny" not in words:
        words += ["model=hf", f"model.path={folder_for(Workload(title='', forced=True), scratch)}"]
    if "data=preference_jsonl" not in words:
        rows = [{"prompt": _said("prompt", f"What is {n} + {n}?"), "answer": str(2 * n)} for n in range(300)]
        return ["data=jsonl", f"data.path={_write(scratch / 'rows.jsonl', rows)}", "data.eval_size=200", *words]
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder_for(Workload(title="", forced=True), scratch))
    rows = [{key: _said(key, text) for key, text in pair.items()} for pair in pairs(PairWorkload(), 3, tokenizer)]
    return [*words, f"data.path={_write(scratch / 'pairs.jsonl', rows)}", "data.eval_size=0"]


def _said(key: str, text: str) -> list[dict[str, str]]:
    return [{"role": "user" if key == "prompt" else "assistant", "content": text}]


def _write(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def estimated(words: list[str]) -> tuple[float, str, dict[str, float]]:
    """(gigabytes, the phase of the peak, gigabytes of each part in it)."""
    done = subprocess.run(
        [sys.executable, "-m", "pggrpo_cli", "plan", "--json", *words], capture_output=True, check=True
    )
    memory = json.loads(done.stdout)["memory"]
    parts = {part: size / 1e9 for part, size in memory["phases"][memory["peak_phase"]].items()}
    return memory["peak"] / 1e9, memory["peak_phase"], parts


def measured(words: list[str]) -> float:
    """Gigabytes."""
    process = subprocess.Popen([sys.executable, "-m", "pggrpo_cli", "train", *words], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"pggrpo train {' '.join(words)} ended with status {status}")
    return usage.ru_maxrss * 1024 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=WORK)
    only = parser.parse_args().only
    print(f"{'':24} estimated  measured  estimated / measured   peak in")
    rows = []
    for name in [only] if only else WORK:
        with tempfile.TemporaryDirectory() as folder:
            words = overrides(name, Path(folder))
            guess, phase, parts = estimated(words)
            real = measured(words)
        print(f"{name:24} {guess:6.2f} GB {real:6.2f} GB {guess / real:10.2f}              {phase}", flush=True)
        if only:
            print("  " + ", ".join(f"{part} {size:.2f}" for part, size in parts.items()))
        rows.append({"work": name, "estimated": guess, "measured": real, "phase": phase, "parts": parts})
    if not only:
        result = {"machine": machine(), "rows": rows}
        (Path(__file__).parent / "memory.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
