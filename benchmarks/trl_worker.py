"""TRL's side of against_trl.py and dpo_against_trl.py, in a process of its own: times by part, one line a step, as JSON.

python benchmarks/trl_worker.py '{"workload": "W1", "variant": "tuned", "steps": 3, "output": "trl.json"}'
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

import datasets
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer
from workloads import (
    DPO_BETA,
    GRPO,
    KL_COEF,
    LEARNING_RATE,
    PairWorkload,
    Workload,
    correct,
    folder_for,
    model_folder,
    questions,
)
from workloads import pairs as preference_pairs

PARTS = ("rollout", "reference", "optimizer")


class Stopwatch(TrainerCallback):
    """Seconds of each part since the last step, and the steps so far."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.steps: list[dict[str, float]] = []

    def timed(self, part: str, call: Any, *args: Any, **kwargs: Any) -> Any:
        started = time.monotonic()
        try:
            return call(*args, **kwargs)
        finally:
            self.seconds[part] += time.monotonic() - started

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        self._began = time.monotonic()

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        self.seconds["optimizer"] += time.monotonic() - self._began

    def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
        if "loss" in logs:
            tokens = {"tokens": logs["completions/mean_length"]} if "completions/mean_length" in logs else {}
            self.steps.append({"ended": time.monotonic(), **tokens, "memory": _peak_gb(), **self.seconds})
            self.seconds = dict.fromkeys(PARTS, 0.0)

    def results(self) -> list[dict[str, float]]:
        """The first step, which warms up, only gives the time when the second began."""
        found = []
        for before, step in itertools.pairwise(self.steps):
            whole = step["ended"] - before["ended"]
            rest = whole - step["rollout"] - step["reference"] - step["optimizer"]
            found.append({**step, "step": whole, "update": rest})
        return found


def _peak_gb() -> float:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def _settings(output: Path, steps: int, dtype: str, variant: str, batch: int, at_once: int | None) -> dict[str, Any]:
    """tuned: no gradient checkpointing, the whole batch in one pass, or `at_once` where memory forbids that. default: what
    TRL does untold, in the same dtype."""
    rows = at_once or batch
    tuned = {
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": batch // rows,
        "gradient_checkpointing": False,
    }
    default = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": max(1, batch // 8)}
    return {
        "output_dir": str(output.parent / "trl"),
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "max_steps": steps,
        "bf16": dtype == "bfloat16",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_pin_memory": False,
        "disable_tqdm": True,
        **(default if variant == "default" else tuned),
    }


def grpo_trainer(
    workload: Workload, variant: str, steps: int, output: Path, watch: Stopwatch | None = None
) -> GRPOTrainer:
    folder = folder_for(workload, output.parent)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = [
        {"prompt": [{"role": "user", "content": row["prompt"]}], "answer": row["answer"]}
        for row in questions(workload, steps + 1, tokenizer)
    ]

    class Timed(GRPOTrainer):
        def _generate(self, *args: Any, **kwargs: Any) -> Any:
            if watch is None:
                return super()._generate(*args, **kwargs)
            return watch.timed("rollout", super()._generate, *args, **kwargs)

        def _get_per_token_logps_and_entropies(self, model: Any, *args: Any, **kwargs: Any) -> Any:
            call = super()._get_per_token_logps_and_entropies
            if watch is None or model is not self.ref_model:
                return call(model, *args, **kwargs)
            return watch.timed("reference", call, model, *args, **kwargs)

    batch = workload.prompts * workload.group_size
    arguments = GRPOConfig(
        **_settings(output, steps, workload.dtype, variant, batch, workload.trl_rows),
        num_generations=workload.group_size,
        max_completion_length=workload.tokens,
        beta=KL_COEF,
        loss_type="grpo",
        temperature=1.0,
        use_bias_correction_kl=False,  # on in TRL: the KL of a token times its ratio, which adds KL · ∇ log π to the gradient
        shuffle_dataset=False,
    )
    return Timed(
        model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        reward_funcs=correct,
        args=arguments,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[] if watch is None else [watch],
    )


def dpo_trainer(workload: PairWorkload, variant: str, steps: int, output: Path, watch: Stopwatch) -> DPOTrainer:
    folder = model_folder()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = [
        {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "chosen": [{"role": "assistant", "content": row["chosen"]}],
            "rejected": [{"role": "assistant", "content": row["rejected"]}],
        }
        for row in preference_pairs(workload, steps, tokenizer)
    ]
    arguments = DPOConfig(
        **_settings(output, steps, workload.dtype, variant, workload.pairs, None),
        beta=DPO_BETA,
        max_length=None,
    )
    return DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        ref_model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        args=arguments,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[watch],
    )


def main() -> None:
    options = json.loads(sys.argv[1])
    output, watch = Path(options["output"]), Stopwatch()
    make: Any = dpo_trainer if options["workload"] == "DPO" else grpo_trainer
    workload: Any = PairWorkload() if options["workload"] == "DPO" else GRPO[options["workload"]]
    make(workload, options["variant"], options["steps"], output, watch).train()
    steps = watch.results()
    for step in steps:
        if "tokens" in step:
            step["tokens"] *= workload.prompts * workload.group_size
    output.write_text(json.dumps(steps))


if __name__ == "__main__":
    main()
