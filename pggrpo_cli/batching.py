"""Scored groups to optimizer steps to micro-batches, with the totals a loss divides by.

A minibatch is one optimizer step. It is split by a token budget into micro-batches whose gradients add up to its own:
every total is counted over the whole minibatch, once, here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from pggrpo_cli.packing import Packed, pack
from pggrpo_cli.types import Rollout


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainRow:
    """One completion to train on."""

    rollout: Rollout
    advantage: float
    sample: int
    """Its place in its group."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainGroup:
    """A prompt and what of its group is trained on."""

    prompt_index: int
    prompt_ids: tuple[int, ...]
    rows: tuple[TrainRow, ...]
    num_sequences: int
    """Completions that count in N: the rows, and those that are masked."""
    pairs: tuple[tuple[int, int], ...] = ()
    """(chosen, rejected), places in `rows`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MicroBatch:
    """One forward and backward. T tokens, B completions, P pairs."""

    packed: Packed
    groups: tuple[TrainGroup, ...]
    advantages: torch.Tensor
    """float32 [B]"""
    lengths: torch.Tensor
    """int64 [B]"""
    pairs: torch.Tensor
    """int64 [P, 2]"""
    sampler_logprobs: torch.Tensor | None
    """float32 [T]: NaN for the tokens of completions that no policy sampled; None if none was sampled."""
    chosen: torch.Tensor
    """bool [B]: see Rollout.chosen."""

    @property
    def rows(self) -> list[TrainRow]:
        return [row for group in self.groups for row in group.rows]


@dataclass(frozen=True, kw_only=True, slots=True)
class Minibatch:
    """One optimizer step: its micro-batches and its totals."""

    micro_batches: tuple[MicroBatch, ...]
    num_sequences: int
    num_tokens: int
    num_pairs: int
    num_chosen: int
    longest: int
    """Tokens of its longest completion, computed or not."""


def split_into_minibatches(
    groups: Sequence[TrainGroup],
    count: int,
    micro_batch_tokens: int,
    generator: torch.Generator,
    *,
    skip_zero_advantages: bool = False,
) -> list[Minibatch]:
    """Deals whole groups, in random order if there are several minibatches, into `count` of nearly equal size.

    `skip_zero_advantages`: completions whose advantage is 0 are counted in the totals, but not computed.
    """
    order = torch.randperm(len(groups), generator=generator).tolist() if count > 1 else list(range(len(groups)))
    minibatches: list[Minibatch] = []
    for part in range(count):
        members = [groups[index] for index in sorted(order[part::count])]
        if any(group.rows for group in members):
            minibatches.append(_minibatch(members, micro_batch_tokens, skip_zero_advantages))
    return minibatches


def resplit(minibatch: Minibatch, micro_batch_tokens: int) -> Minibatch:
    """The same rows and totals in micro-batches of another size."""
    pieces = [group for micro in minibatch.micro_batches for group in micro.groups]
    return replace(minibatch, micro_batches=micro_batches(pieces, micro_batch_tokens))


def largest_cost(minibatch: Minibatch) -> int:
    """Tokens of its largest micro-batch."""
    return max(sum(map(_cost, micro.groups)) for micro in minibatch.micro_batches)


def _minibatch(groups: Sequence[TrainGroup], micro_batch_tokens: int, skip_zero_advantages: bool) -> Minibatch:
    return Minibatch(
        micro_batches=micro_batches(_with_gradient(groups) if skip_zero_advantages else groups, micro_batch_tokens),
        num_sequences=sum(group.num_sequences for group in groups),
        num_tokens=sum(row.rollout.completion_ids.shape[0] for group in groups for row in group.rows),
        num_pairs=sum(len(group.pairs) for group in groups),
        num_chosen=sum(row.rollout.chosen for group in groups for row in group.rows),
        longest=max(row.rollout.completion_ids.shape[0] for group in groups for row in group.rows),
    )


def _with_gradient(groups: Sequence[TrainGroup]) -> list[TrainGroup]:
    """The completions whose advantage is not 0. If there is none, the cheapest completion stays: an optimizer with
    momentum moves on a gradient of zeros, but not on none."""
    kept = [replace(group, rows=tuple(row for row in group.rows if row.advantage != 0)) for group in groups]
    if any(group.rows for group in kept):
        return kept
    single = [replace(group, rows=(row,)) for group in groups for row in group.rows]
    return [min(single, key=_cost)]


def micro_batches(groups: Sequence[TrainGroup], micro_batch_tokens: int) -> tuple[MicroBatch, ...]:
    """The rows of `groups` in their order, so many tokens at a time."""
    made: list[MicroBatch] = []
    held: list[TrainGroup] = []
    tokens = 0
    for group in groups:
        for piece in _pieces(group, micro_batch_tokens):
            cost = _cost(piece)
            if held and tokens + cost > micro_batch_tokens:
                made.append(_micro_batch(held))
                held, tokens = [], 0
            held.append(piece)
            tokens += cost
    if held:
        made.append(_micro_batch(held))
    return tuple(made)


def _cost(group: TrainGroup) -> int:
    return len(group.prompt_ids) + sum(row.rollout.completion_ids.shape[0] for row in group.rows)


def _pieces(group: TrainGroup, budget: int) -> Iterator[TrainGroup]:
    """The group, or, if it is over the budget, parts of it with the prompt computed again.

    Completions that are paired, directly or through others, stay together; so a part may exceed the budget.
    """
    if not group.rows:
        return
    if _cost(group) <= budget:
        yield group
        return
    held: list[int] = []
    cost = len(group.prompt_ids)
    for component in _connected(len(group.rows), group.pairs):
        extra = sum(group.rows[place].rollout.completion_ids.shape[0] for place in component)
        if held and cost + extra > budget:
            yield _part(group, held)
            held, cost = [], len(group.prompt_ids)
        held += component
        cost += extra
    yield _part(group, held)


def _part(group: TrainGroup, places: Sequence[int]) -> TrainGroup:
    new_place = {place: index for index, place in enumerate(places)}
    pairs = tuple((new_place[a], new_place[b]) for a, b in group.pairs if a in new_place)
    return replace(group, rows=tuple(group.rows[place] for place in places), pairs=pairs)


def _connected(count: int, pairs: Sequence[tuple[int, int]]) -> list[list[int]]:
    """The connected components of `count` places under `pairs`, each in ascending order."""
    label = list(range(count))
    for a, b in pairs:
        old, new = max(label[a], label[b]), min(label[a], label[b])
        label = [new if value == old else value for value in label]
    return [[place for place in range(count) if label[place] == name] for name in sorted(set(label))]


def _micro_batch(groups: Sequence[TrainGroup]) -> MicroBatch:
    rows = [row for group in groups for row in group.rows]
    pairs: list[tuple[int, int]] = []
    offset = 0
    for group in groups:
        pairs += [(a + offset, b + offset) for a, b in group.pairs]
        offset += len(group.rows)
    return MicroBatch(
        packed=pack(
            [group.prompt_ids for group in groups],
            [[row.rollout.completion_ids for row in group.rows] for group in groups],
        ),
        groups=tuple(groups),
        advantages=torch.tensor([row.advantage for row in rows], dtype=torch.float32),
        lengths=torch.tensor([row.rollout.completion_ids.shape[0] for row in rows], dtype=torch.long),
        pairs=torch.tensor(pairs, dtype=torch.long).reshape(-1, 2),
        sampler_logprobs=_sampler_logprobs([row.rollout for row in rows]),
        chosen=torch.tensor([row.rollout.chosen for row in rows], dtype=torch.bool),
    )


def _sampler_logprobs(rollouts: Sequence[Rollout]) -> torch.Tensor | None:
    if all(rollout.logprobs is None for rollout in rollouts):
        return None
    return torch.cat(
        [
            torch.full(rollout.completion_ids.shape, math.nan) if rollout.logprobs is None else rollout.logprobs
            for rollout in rollouts
        ]
    )
