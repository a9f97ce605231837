"""Run directories as small files, written by the test that reads them."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pggrpo_cli.composing import compose
from pggrpo_cli.config import as_dict, typed
from pggrpo_cli.run_directory import save_config, save_finished, save_overrides

ENVIRONMENT = {
    "time": "2026-11-23T12:00:00+00:00",
    "argv": ["/home/someone/bin/pggrpo", "train", "model=tiny"],
    "folder": "/home/someone/secret",
    "versions": {"pggrpo": "0.1.0", "torch": "2.13.0"},
    "computes": "float32 on cpu",
    "threads": {"torch": 2, "interop": 2},
}
HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(2)>\u2028</div></bdi>--></style></title>'\"&amp;{{7*7}}{% raw %}"
    " [/INST] [red]x[/red] \x1b[2J\x1b]0;title\x07 \x00 \x9b31m \u202eevil\u2066 \ud800 \U000e0041 `${1}` \r lone \r\n pair"
)


@cache
def config(*overrides: str) -> dict[str, Any]:
    return as_dict(typed(compose("train", ["model=tiny", "logger=[]", *overrides])))


def metrics_of(step: int, seed: int = 1) -> dict[str, Any]:
    """A step's numbers, different in every step and seed; an evaluation every fifth step."""
    wave = math.sin(1.7 * step + 3.1 * seed)
    line: dict[str, Any] = {"step": step}
    if step > 0:
        reward = 0.2 + 0.01 * step + 0.05 * wave
        line |= {
            "completions/mean_length": 12 + wave, "completions/min_length": 3.0, "completions/max_length": 24.0,
            "completions/clipped_ratio": 0.25, "num_tokens": 300.0 * step, "reward": reward, "reward_std": 0.3,
            "frac_reward_zero_std": 0.125, "rewards/exact_answer/mean": reward, "rewards/format/mean": 0.5 + 0.1 * wave,
            "kl": 0.001 * step, "entropy": 2.0 - 0.01 * step, "clip_ratio/low_mean": 0.01, "clip_ratio/high_mean": 0.02,
            "clip_ratio/region_mean": 0.03, "ratio/clamped_fraction": 0.0, "ratio/max": 1.5, "loss": -0.01 * wave,
            "grad_norm": 0.7 + 0.2 * wave, "learning_rate": 2e-5 * (1 - step / 100), "updates/skipped": 0.0,
            "step_time": 2.0 + 0.1 * seed, "tokens_per_second": 400.0 + wave, "memory/peak_gb": 1.5,
            "time/rollout": 1.2 + 0.01 * step, "time/score": 0.1, "time/update": 0.7,
            "time/reference": 0.1, "time/optimizer": 0.05,
        }  # fmt: skip
    if step % 5 == 0:
        rewards = held_out_rewards(step, seed)
        line |= {
            "eval/reward": sum(rewards) / len(rewards),
            "eval/completions/mean_length": 11.0,
            "time/evaluation": 0.5,
        }
    return line


def held_out_rewards(step: int, seed: int = 1) -> list[float]:
    return [1.0 if (7 * prompt + 3 * seed) % 20 < 4 + step // 3 else 0.0 for prompt in range(20)]


def samples_of(step: int, seed: int = 1, text: str = "the answer is {}") -> list[dict[str, Any]]:
    lines = []
    if step > 0:
        for prompt in range(2):
            for sample in range(4):
                reward = ((step + 3 * prompt + 5 * sample) % 7) / 7
                lines.append(
                    _sample(step, False, prompt, sample, text.replace("{}", f"{step}.{prompt}.{sample}"), reward)
                )
    if step % 5 == 0:
        for prompt, reward in enumerate(held_out_rewards(step, seed)):
            lines.append(_sample(step, True, prompt, 0, text.replace("{}", f"held out {step}.{prompt}"), reward))
    return lines


def _sample(step: int, held_out: bool, prompt: int, sample: int, text: str, reward: float) -> dict[str, Any]:
    return {
        "step": step, "held_out": held_out, "prompt_index": prompt, "sample": sample, "prompt": f"question {prompt}?",
        "completion": text, "finish_reason": "stop", "reward": reward,
        "reward_terms": {"exact_answer": reward, "format": None}, "advantage": None if held_out else reward - 0.5,
    }  # fmt: skip


def write_lines(file: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """ensure_ascii, so that a test can write what recorder.py never would: lone surrogates."""
    file.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def make_run(
    folder: Path, *overrides: str, steps: int = 20, seed: int = 1, finished: bool = True, text: str = "the answer is {}"
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    values = copy.deepcopy(config(*overrides))
    values["seed"] = seed
    values["trainer"] |= {"max_steps": steps if finished else 100, "prompts_per_step": 2}
    values["sampler"]["group_size"] = 4
    save_config(folder, values)
    words = [f"seed={seed}", f"trainer.max_steps={values['trainer']['max_steps']}", "sampler.group_size=4"]
    save_overrides(folder, [*overrides, *words, "trainer.prompts_per_step=2"])
    (folder / "environment.json").write_text(json.dumps(ENVIRONMENT))
    write_lines(folder / "metrics.jsonl", (metrics_of(step, seed) for step in range(steps + 1)))
    write_lines(folder / "samples.jsonl", (line for step in range(steps + 1) for line in samples_of(step, seed, text)))
    checkpoint = folder / "checkpoints" / f"step-{steps:06d}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "manifest.json").write_text("{}")
    if finished:
        save_finished(folder, steps)
    return folder
