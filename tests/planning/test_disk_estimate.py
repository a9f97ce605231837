"""What a run's lines take, against lines that the recorder wrote of completions as long as they may be."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from pggrpo_cli.check import checked
from pggrpo_cli.composing import compose
from pggrpo_cli.planning.disk_estimate import disk_estimate
from pggrpo_cli.planning.run_counts import Lengths, run_counts
from pggrpo_cli.recorder import Recorder
from pggrpo_cli.types import Prompt, Rollout, Row, ScoredGroup

VOCABULARY, PROMPT, TOKENS = 49_152, 90, 300
TEXT = "word " * PROMPT


def group(drawn: random.Random, size: int, *, sampled: bool) -> ScoredGroup:
    ids = [torch.tensor([drawn.randrange(VOCABULARY) for _ in range(TOKENS)]) for _ in range(size)]
    rollouts = [
        Rollout(
            completion_ids=one,
            logprobs=-torch.rand(TOKENS, generator=torch.Generator().manual_seed(drawn.randrange(99))) * 5
            if sampled
            else None,
            text="four" * TOKENS,
            finish_reason="length",
        )
        for one in ids
    ]
    rewards = [drawn.random() for _ in ids]
    prompt = Prompt(row=Row(prompt=""), index=1234, text=TEXT, token_ids=tuple(range(10_000, 10_000 + PROMPT)))
    return ScoredGroup(
        prompt=prompt, rollouts=rollouts, rewards=rewards, reward_terms={"exact_answer": rewards, "format": rewards},
        advantages=rewards,
    )  # fmt: skip


@pytest.mark.parametrize("sampled", [True, False])
def test_lines_hold_token_ids_and_logprobs(sampled: bool, tmp_path: Path) -> None:
    words = ["model=tiny", "trainer.max_steps=2", "evaluation.every=null", "checkpoint.keep_best=null"]
    if sampled:
        words += [f"sampler.max_new_tokens={TOKENS}"]
    else:
        words += ["data=preference_jsonl", "data.path=x.jsonl", "loss=dpo"]
    lengths = Lengths.of([(PROMPT, [] if sampled else [TOKENS])], prompts=100, held_out=0)
    counts = run_counts(checked(compose("train", words)), lengths)
    found = disk_estimate(counts, [], 0, 0, (len(TEXT), PROMPT), VOCABULARY)
    drawn = random.Random(1)
    with Recorder(tmp_path) as recorder:
        for step in (1, 2):
            groups = [group(drawn, counts.group_size, sampled=sampled) for _ in range(counts.prompts_per_step)]
            recorder.samples(step, groups)
    written = (tmp_path / "samples.jsonl").stat().st_size
    assert written <= found.lines < 1.35 * written


def test_an_answer_to_a_held_out_prompt_has_all_of_it(tmp_path: Path) -> None:
    words = ["model=tiny", "trainer.max_steps=1", "evaluation.every=1", f"evaluation.max_new_tokens={TOKENS}"]
    lengths = Lengths.of([(PROMPT, [])], prompts=100, held_out=64)
    config = checked(compose("train", words))
    counts, quiet = run_counts(config, lengths), run_counts(config, Lengths.of([(PROMPT, [])], prompts=100, held_out=0))
    evaluated, without = (disk_estimate(one, [], 0, 0, (len(TEXT), PROMPT), VOCABULARY) for one in (counts, quiet))
    with Recorder(tmp_path) as recorder:
        for step in (0, 1):
            recorder.samples(step, [group(random.Random(n), 1, sampled=True) for n in range(64)], held_out=True)
    written = (tmp_path / "samples.jsonl").stat().st_size
    assert written <= evaluated.lines - without.lines < 1.35 * written
