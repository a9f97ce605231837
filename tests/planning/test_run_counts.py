"""The arithmetic of a run, against numbers worked out by hand and against the splitting that the update does."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pggrpo_cli.batching import TrainGroup, TrainRow, micro_batches
from pggrpo_cli.check import checked
from pggrpo_cli.composing import compose
from pggrpo_cli.planning.run_counts import Lengths, RunCounts, run_counts
from pggrpo_cli.types import Rollout


def lengths(**changes: Any) -> Lengths:
    values = {"mean_prompt": 50.0, "longest_prompt": 60, "mean_completion": 0.0, "prompts": 1000, "held_out": 64}
    return Lengths(**(values | changes))


def counts(*overrides: str, **changes: Any) -> RunCounts:
    return run_counts(checked(compose("train", ["model=tiny", *overrides])), lengths(**changes))


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
    found = counts(*words, mean_completion=100.4)
    assert not found.samples
    assert (found.completion_tokens, found.completions_per_step) == (100, 16)
    assert found.tokens_per_step == 8 * (50 + 2 * 100)


@pytest.mark.parametrize("budget", [8192, 1000, 500, 243, 242, 241, 120, 75, 10])
def test_micro_batches_are_those_of_the_update(budget: int) -> None:
    """Eight groups of 50 tokens and eight completions of 24."""
    rollout = Rollout(completion_ids=torch.zeros(24, dtype=torch.long), logprobs=None, text="", finish_reason="length")
    rows = tuple(TrainRow(rollout=rollout, advantage=1.0, sample=sample) for sample in range(8))
    groups = [TrainGroup(prompt_index=n, prompt_ids=(0,) * 50, rows=rows, num_sequences=8) for n in range(8)]
    made = micro_batches(groups, budget)
    found = counts(f"trainer.micro_batch_tokens={budget}")
    costs = [sum(50 + 24 * len(group.rows) for group in micro.groups) for micro in made]
    assert (found.micro_batches, found.micro_batch_tokens) == (len(made), max(costs))
