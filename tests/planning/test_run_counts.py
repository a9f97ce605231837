"""The arithmetic of a run, against numbers worked out by hand and against the splitting that the update does."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
import torch

from pggrpo_cli.batching import TrainGroup, TrainRow, micro_batches
from pggrpo_cli.check import checked
from pggrpo_cli.composing import compose
from pggrpo_cli.planning.run_counts import Lengths, RunCounts, run_counts
from pggrpo_cli.types import Rollout


def lengths(
    prompt: int | Sequence[int] = 50, completions: Sequence[int] = (), prompts: int = 1000, held_out: int = 64
) -> Lengths:
    asked = [prompt] if isinstance(prompt, int) else prompt
    return Lengths.of([(one, completions) for one in asked], prompts=prompts, held_out=held_out)


def counts(*overrides: str, pairs: bool = False, **changes: Any) -> RunCounts:
    return run_counts(checked(compose("train", ["model=tiny", *overrides])), lengths(**changes), pairs=pairs)


def test_of_the_default_run() -> None:
    found = counts()
    assert (found.completions_per_step, found.tokens_per_step) == (64, 8 * (50 + 8 * 24))
    assert (found.updates_per_step, found.updates) == (1, 24)
    assert (found.micro_batches, found.micro_batch_tokens) == (1, 8 * 242)
    assert found.epochs == pytest.approx(24 * 8 / 1000)
    assert found.evaluations == (0, 8, 16, 24)
    assert (found.evaluated_prompts, found.evaluation_tokens) == (64, 24)
    assert (found.checkpoints, found.written, found.kept) == ((8, 16, 24), 3, 3)


def test_passes_minibatches_and_what_is_not_a_multiple() -> None:
    words = ["trainer.passes_per_rollout=2", "trainer.minibatches=4", "trainer.max_steps=10", "checkpoint.every=4"]
    found = counts(*words, "evaluation.every=3", "evaluation.num_prompts=100", "checkpoint.keep_last=1")
    assert (found.updates_per_step, found.updates, found.minibatches) == (8, 80, 4)
    assert found.micro_batch_tokens == 2 * 242  # two of the eight prompts a minibatch
    assert found.evaluations == (0, 3, 6, 9, 10)
    assert found.evaluated_prompts == 64  # no more are held out
    assert found.checkpoints == (4, 8, 10)
    assert (found.written, found.kept) == (6, 2)  # 3, 4, 6, 8, 9 and 10; the last and the best


def test_without_evaluations_and_best() -> None:
    found = counts("evaluation.every=null", "checkpoint.keep_best=null", "checkpoint.every=null")
    assert (found.evaluations, found.evaluated_prompts) == ((), 0)
    assert (found.checkpoints, found.written, found.kept) == ((24,), 1, 1)
    assert counts(held_out=0).evaluations == ()


def test_of_completions_that_the_data_bring() -> None:
    words = ["data=preference_jsonl", "data.path=x.jsonl", "loss=dpo", "evaluation.every=null"]
    found = counts(*words, completions=[90, 111])
    assert not found.samples
    assert (found.completion_tokens, found.completions_per_step) == (100, 16)
    assert found.tokens_per_step == 8 * (50 + 90 + 111)
    paired = counts(*words, "trainer.micro_batch_tokens=100", completions=[90, 111], pairs=True)
    assert paired.micro_batch_tokens == 50 + 90 + 111  # a pair is not split


def groups_of(prompts: Sequence[int], completions: Sequence[Sequence[int]]) -> list[TrainGroup]:
    made = []
    for place, (prompt, lengths) in enumerate(zip(prompts, completions, strict=True)):
        ids = [torch.zeros(length, dtype=torch.long) for length in lengths]
        rollouts = [Rollout(completion_ids=one, logprobs=None, text="", finish_reason="length") for one in ids]
        rows = tuple(TrainRow(rollout=one, advantage=1.0, sample=sample) for sample, one in enumerate(rollouts))
        made.append(TrainGroup(prompt_index=place, prompt_ids=(0,) * prompt, rows=rows, num_sequences=len(rows)))
    return made


def costs(groups: Sequence[TrainGroup], budget: int) -> list[int]:
    """Tokens of each micro-batch that the update makes."""
    made = micro_batches(groups, budget)
    return [micro.packed.input_ids.shape[0] + len(micro.rows) for micro in made]  # the last of a completion is not fed


BUDGETS = [8192, 1000, 500, 243, 242, 241, 120, 75, 10]


@pytest.mark.parametrize("budget", BUDGETS)
def test_micro_batches_are_as_many_as_those_of_the_update(budget: int) -> None:
    """Eight groups of 50 tokens and eight completions of 24."""
    made = costs(groups_of([50] * 8, [[24] * 8] * 8), budget)
    found = counts(f"trainer.micro_batch_tokens={budget}")
    assert found.micro_batches == len(made)
    assert max(made) <= found.micro_batch_tokens <= max(made[0], budget)


@pytest.mark.parametrize("budget", BUDGETS)
def test_at_most_holds_whatever_the_lengths(budget: int) -> None:
    """Of 40 rows eight a step, with prompts of 3 to 380 tokens and completions that end early."""
    random = Random(1)
    asked = [380, *(random.randint(3, 40) for _ in range(39))]
    found = counts(f"trainer.micro_batch_tokens={budget}", prompt=asked, prompts=40)
    for attempt in range(50):
        prompts = random.sample(asked, 8) if attempt else sorted(asked)[-8:]
        drawn = [[random.choice([1, 5, 24, 24]) for _ in range(8)] for _ in prompts]
        made = costs(groups_of(prompts, drawn), budget)
        assert max(made) <= found.micro_batch_tokens
        assert len(made) <= found.micro_batches
        assert sum(prompts) + sum(map(sum, drawn)) <= found.tokens_per_step


def test_one_long_prompt_among_short_ones() -> None:
    asked = [380, *[3] * 39]
    words = ["trainer.prompts_per_step=1", "sampler.group_size=2", "sampler.max_new_tokens=16"]
    found = counts(*words, prompt=asked, prompts=40)
    assert (found.micro_batch_tokens, found.tokens_per_step) == (380 + 2 * 16, 380 + 2 * 16)
    words[0] = "trainer.prompts_per_step=3"
    assert counts(*words, prompt=asked, prompts=40).micro_batch_tokens == 380 + 2 * 3 + 3 * 32  # it comes once a step
    assert counts(*words, prompt=asked, prompts=80).micro_batch_tokens == 2 * 380 + 3 + 3 * 32  # 40 stand for 80
