"""A training step of pggrpo against one of TRL: interleaved, in fresh processes, on this machine.

The same model, prompts, group size, lengths, precision, learning rate and KL. TRL three times: `tuned` (gradient
checkpointing off, the whole batch in one pass), `allocator` (tuned, and glibc told to keep freed memory, as pggrpo tells
it itself) and `default` (what it does untold). First benchmarks/gate.py: do they compute the same? Prints tables, writes
benchmarks/against_trl.json, and draws docs/against_trl.svg from all that stands there.

    python benchmarks/against_trl.py [--workloads W1 "W1 forced" W2 …] [--variants tuned allocator default]
                                     [--pairs 3] [--steps 4] [--no-gate]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pggrpo_runs
import picture
import probes
import torch
from workloads import GRPO, PairWorkload, Workload, decoding, machine, model_folder

Steps = list[dict[str, float]]
COLUMNS = ("step", "rollout", "reference", "update", "optimizer", "tokens", "memory")
VARIANTS: dict[str, dict[str, str]] = {
    "tuned": {},
    "allocator": {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)},
    "default": {},
}
RESULTS = Path(__file__).parent / "against_trl.json"


def run_trl(workload: str, variant: str, steps: int, scratch: Path) -> Steps:
    output = scratch / "trl.json"
    options = {"workload": workload, "variant": variant, "steps": steps, "output": str(output)}
    command = [sys.executable, str(Path(__file__).with_name("trl_worker.py")), json.dumps(options)]
    environment = {**os.environ, **VARIANTS[variant]}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    found: Steps = json.loads(output.read_text())
    return found


def run_pggrpo(workload: str, steps: int, scratch: Path) -> Steps:
    if workload == "DPO":
        return pggrpo_runs.dpo(PairWorkload(), steps, scratch)
    return pggrpo_runs.grpo(GRPO[workload], steps, scratch)


def median(runs: list[Steps]) -> dict[str, float]:
    return {
        column: statistics.median(step[column] for run in runs for step in run)
        for column in (*COLUMNS, "longest")
        if column in runs[0][0]
    }


def floor_of(workload: Workload, ours: dict[str, float]) -> dict[str, float]:
    """The least time of the arithmetic that pggrpo did, at the rates that this machine shows now."""
    from transformers import AutoConfig, AutoTokenizer
    from workloads import questions

    config = AutoConfig.from_pretrained(model_folder())
    tokenizer = AutoTokenizer.from_pretrained(model_folder())
    text = questions(workload, 1, tokenizer)[0]["prompt"]
    said = tokenizer.apply_chat_template([{"role": "user", "content": text}], add_generation_prompt=True)
    size, heads = config.hidden_size, config.num_attention_heads
    keys = size // heads * config.num_key_value_heads
    layer = 2 * size * size + 2 * size * keys + 3 * size * config.intermediate_size
    head = config.vocab_size * size
    body = config.num_hidden_layers * layer
    dtype = getattr(torch, workload.dtype)
    sizes = probes.Sizes(
        body=body,
        head=head,
        parameters=body + head,
        prompts=workload.prompts,
        prompt_tokens=len(said["input_ids"]),
        completions=workload.prompts * workload.group_size,
        completion_tokens=ours["tokens"],
        decode_steps=ours["longest"],
        element=dtype.itemsize,
    )
    rates = probes.measure(dtype)
    return {
        **probes.floor(sizes, rates),
        "product_gflops": rates.product / 1e9,
        "copy_gb": rates.copy / 1e9,
    }


def compare(workload: str, variants: list[str], pairs: int, steps: int) -> dict[str, Any]:
    ours: list[Steps] = []
    theirs: dict[str, list[Steps]] = {variant: [] for variant in variants}
    for pair in range(pairs):
        with tempfile.TemporaryDirectory() as folder:
            ours.append(run_pggrpo(workload, steps, Path(folder)))
            said = [f"pggrpo {median(ours[-1:])['step']:.1f} s"]
            for variant in variants:
                theirs[variant].append(run_trl(workload, variant, steps, Path(folder)))
                said.append(f"TRL {variant} {median(theirs[variant][-1:])['step']:.1f} s")
        print(f"  {workload}, pair {pair + 1}: {', '.join(said)}", flush=True)
    result: dict[str, Any] = {"machine": machine(), "decoding": decoding(), "pairs": pairs, "steps": steps}
    result |= {"pggrpo": median(ours), "trl": {}}
    for variant, runs in theirs.items():
        ratios = [median([t])["step"] / median([o])["step"] for t, o in zip(runs, ours, strict=True)]
        result["trl"][variant] = {**median(runs), "ratios": ratios, "ratio": statistics.median(ratios)}
    if workload in GRPO:
        result["floor"] = floor_of(GRPO[workload], result["pggrpo"])
    return result


def show(workload: str, result: dict[str, Any]) -> None:
    title = GRPO[workload].title if workload in GRPO else PairWorkload().title
    print(f"\n{title}; {result['machine']}; medians over {result['pairs']} interleaved pairs")
    print(f"{'':15}" + "".join(f"{column:>11}" for column in COLUMNS) + f"{'ratio':>8}")
    rows = {"pggrpo": result["pggrpo"], **{f"TRL {name}": row for name, row in result["trl"].items()}}
    if "floor" in result:
        rows["floor"] = result["floor"]
    for name, row in rows.items():
        cells = "".join(f"{row[column]:>11.2f}" if column in row else f"{'':>11}" for column in COLUMNS)
        print(f"{name:15}{cells}" + (f"{row['ratio']:8.2f}" if "ratio" in row else ""))


def main(workloads: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", nargs="+", default=workloads or ["W1", "W1 forced"], choices=[*GRPO, "DPO"])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4, help="the first of them warms up and is not counted")
    parser.add_argument("--no-gate", action="store_true", help="do not check first that both compute the same")
    options = parser.parse_args()
    if not options.no_gate:
        subprocess.run([sys.executable, str(Path(__file__).with_name("gate.py"))], check=True)
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    here = results.setdefault(machine(), {})
    for workload in options.workloads:
        here[workload] = compare(workload, options.variants, options.pairs, options.steps)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        show(workload, here[workload])
        picture.main()


if __name__ == "__main__":
    main()
