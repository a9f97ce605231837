"""Preference pairs for experiment=dpo_arithmetic: the model samples answers to sums, the answers are scored, and a right
and a wrong one of the same question make a pair. Writes outputs/arithmetic_preferences.jsonl, and beside it the questions
held out, of which no pair is made: those on which the other experiments are evaluated with the same seed.

    python benchmarks/arithmetic_preferences.py [overrides of pggrpo train, such as sampler.group_size=16]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from pggrpo_cli.check import checked
from pggrpo_cli.composing import compose
from pggrpo_cli.config import TrainConfig
from pggrpo_cli.instantiate import component
from pggrpo_cli.policy import Policy, resolve_compute_dtype
from pggrpo_cli.prompts import apply_format, format_of, render_rows
from pggrpo_cli.rollouts import samples_of
from pggrpo_cli.sampler.native import OpenNative
from pggrpo_cli.scoring.scorer import Scorer, open_scorer
from pggrpo_cli.types import DrawKey, RewardContext

OUTPUT = Path("outputs/arithmetic_preferences.jsonl")
HELD_OUT = Path("outputs/arithmetic_held_out.jsonl")
PROMPTS_AT_A_TIME = 16
PAIRS_A_PROMPT = 2


def main() -> None:
    config = checked(compose("train", ["sampler.group_size=16", *sys.argv[1:]]))
    with open_scorer(config, RewardContext(run_dir=None, device="cpu", seed=config.seed)) as scorer:
        write_pairs(config, scorer)


def write_pairs(config: TrainConfig, scorer: Scorer) -> None:
    torch.manual_seed(config.seed)
    loaded = component(config.model, "model").load()
    compute = resolve_compute_dtype(config.model["compute_dtype"], torch.device("cpu"))
    policy = Policy(loaded.module, loaded.tokenizer, compute)
    rows = component(config.data, "data").load(config.seed)
    prompt_format = format_of(config.data)
    room = policy.context_length - config.sampler["max_new_tokens"]
    prompts = render_rows(rows.train, policy.tokenizer, prompt_format, room, policy.end_token_ids).prompts
    sampler = OpenNative(component(config.sampler, "sampler"))
    OUTPUT.parent.mkdir(exist_ok=True)
    with HELD_OUT.open("w", encoding="utf-8") as file:
        for row in rows.evaluation:
            record = {"prompt": apply_format(row, prompt_format).prompt, "answer": row.columns["answer"]}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
    pairs = solved = 0
    with OUTPUT.open("w", encoding="utf-8") as file:
        for first in range(0, len(prompts), PROMPTS_AT_A_TIME):
            draws = DrawKey(seed=config.seed, purpose="rollout", step=0, first_ordinal=first)
            groups = sampler.sample(policy, prompts[first : first + PROMPTS_AT_A_TIME], draws)
            for group in groups:
                scores = scorer.score(samples_of([group], 0)).rewards
                texts = [rollout.text for rollout in group.rollouts]
                right = sorted({text for text, score in zip(texts, scores, strict=True) if score == 1}, key=len)
                wrong = sorted({text for text, score in zip(texts, scores, strict=True) if score == 0}, key=len)
                solved += bool(right)
                # Shortest first: among right answers the bare number, among wrong ones the nearest to it in form.
                for chosen, rejected in list(zip(right, wrong, strict=False))[:PAIRS_A_PROMPT]:
                    row = group.prompt.row
                    record = {
                        "prompt": row.prompt,
                        "chosen": [{"role": "assistant", "content": chosen}],
                        "rejected": [{"role": "assistant", "content": rejected}],
                        "answer": row.columns["answer"],
                    }
                    file.write(json.dumps(record, ensure_ascii=False) + "\n")
                    pairs += 1
            print(f"\r{min(first + PROMPTS_AT_A_TIME, len(prompts))}/{len(prompts)} prompts, {pairs} pairs", end="")
    print(f"\n{solved} of {len(prompts)} prompts had a right answer among {config.sampler['group_size']}: {OUTPUT}")


if __name__ == "__main__":
    main()
