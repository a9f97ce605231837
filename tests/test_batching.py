"""Minibatches and micro-batches: nothing lost, pairs together, totals of the whole step."""

from __future__ import annotations

import torch

from pggrpo_cli.batching import TrainGroup, TrainRow, split_into_minibatches
from pggrpo_cli.types import Rollout


def group(index: int, lengths: list[int], prompt: int = 4, pairs: tuple[tuple[int, int], ...] = ()) -> TrainGroup:
    rows = tuple(
        TrainRow(
            rollout=Rollout(
                completion_ids=torch.full((n,), 100 * index + sample),
                logprobs=torch.zeros(n),
                text="",
                finish_reason="stop",
            ),
            advantage=float(sample),
            sample=sample,
        )
        for sample, n in enumerate(lengths)
    )
    return TrainGroup(prompt_index=index, prompt_ids=(1,) * prompt, rows=rows, num_sequences=len(lengths), pairs=pairs)


def split(groups: list[TrainGroup], count: int = 1, budget: int = 10_000) -> list:
    return split_into_minibatches(groups, count, budget, torch.Generator().manual_seed(0))


def test_one_micro_batch_if_it_fits() -> None:
    (mini,) = split([group(1, [3, 5]), group(2, [2])])
    assert len(mini.micro_batches) == 1
    assert (mini.num_sequences, mini.num_tokens, mini.num_pairs) == (3, 10, 0)


def test_every_completion_is_in_exactly_one_micro_batch() -> None:
    groups = [group(index, [5, 7, 3, 9]) for index in range(5)]
    for budget in (1, 10, 20, 30, 60, 1000):
        (mini,) = split(groups, budget=budget)
        found = [int(row.rollout.completion_ids[0]) for micro in mini.micro_batches for row in micro.rows]
        assert sorted(found) == sorted(100 * g + s for g in range(5) for s in range(4))
        assert mini.num_tokens == 5 * 24
        assert all(len(micro.rows) == 1 or micro.packed.input_ids.shape[0] <= budget for micro in mini.micro_batches)
    assert len(split(groups, budget=1)[0].micro_batches) == 20


def test_pairs_stay_together_when_a_group_is_split() -> None:
    pairs = ((0, 3), (1, 2), (4, 5))
    (mini,) = split([group(1, [10] * 6, pairs=pairs)], budget=25)
    assert len(mini.micro_batches) == 3
    found = []
    for micro in mini.micro_batches:
        for a, b in micro.pairs.tolist():
            found.append((micro.rows[a].sample, micro.rows[b].sample))
    assert sorted(found) == sorted(pairs)
    assert mini.num_pairs == 3


def test_chained_pairs_are_one_piece() -> None:
    (mini,) = split([group(1, [10] * 4, pairs=((0, 1), (1, 2), (0, 3)))], budget=25)
    assert len(mini.micro_batches) == 1


def test_minibatches_share_out_the_groups() -> None:
    groups = [group(index, [3, 3]) for index in range(7)]
    minibatches = split(groups, count=3)
    sizes = [mini.num_sequences for mini in minibatches]
    assert sorted(sizes) == [4, 4, 6]
    indices = [g.prompt_index for mini in minibatches for micro in mini.micro_batches for g in micro.groups]
    assert sorted(indices) == list(range(7))


def test_masked_completions_count_in_the_number_of_sequences() -> None:
    masked = TrainGroup(prompt_index=9, prompt_ids=(1,), rows=(), num_sequences=4)
    (mini,) = split([masked, group(1, [2])])
    assert (mini.num_sequences, mini.num_tokens) == (5, 2)
    assert split([masked]) == []


def test_completions_without_advantage_are_counted_but_not_computed() -> None:
    groups = [group(1, [3, 5, 2]), group(2, [4])]  # advantages 0, 1, 2 and 0
    (mini,) = split_into_minibatches(groups, 1, 100, torch.Generator(), skip_zero_advantages=True)
    assert [(g.prompt_index, [row.sample for row in g.rows]) for g in mini.micro_batches[0].groups] == [(1, [1, 2])]
    assert (mini.num_sequences, mini.num_tokens) == (4, 14)
    (whole,) = split(groups)
    assert (whole.num_sequences, whole.num_tokens) == (4, 14)
    assert len(whole.micro_batches[0].rows) == 4


def test_the_longest_completion_counts_though_it_is_not_computed() -> None:
    groups = [group(1, [9, 5, 2])]  # the advantage of the first is 0
    (mini,) = split_into_minibatches(groups, 1, 100, torch.Generator(), skip_zero_advantages=True)
    assert [row.sample for row in mini.micro_batches[0].rows] == [1, 2]
    assert mini.longest == split(groups)[0].longest == 9


def test_one_completion_stays_so_that_the_optimizer_steps() -> None:
    (mini,) = split_into_minibatches(
        [group(1, [9], prompt=2), group(2, [4], prompt=3)], 1, 100, torch.Generator(), skip_zero_advantages=True
    )
    assert [row.rollout.completion_ids.shape[0] for row in mini.micro_batches[0].rows] == [4]
    assert (mini.num_sequences, mini.num_tokens) == (2, 13)
