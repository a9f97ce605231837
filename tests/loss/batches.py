"""Micro-batches for the tests of losses, in float64, and their split into smaller ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from pggrpo_cli.metrics import merge, values
from pggrpo_cli.types import TokenScores, TrainBatch

LENGTHS = (3, 1, 5, 2)
ADVANTAGES = (0.8, -0.5, 1.1, -1.4)
KL: dict[str, Any] = {
    "kl_coef": 0.0,
    "kl_estimator": "k3",
    "kl_reduction": "token_mean",
    "entropy_coef": 0.0,
    "nll_coef": 0.0,
}
CHOSEN = (True, False, True, False)
CLIP: dict[str, Any] = {"clip_low": 0.2, "clip_high": 0.2, "ratio_max": None}


def numbers(seed: int, count: int, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make_batch(drift: float = 0.3, lengths: Sequence[int] = LENGTHS) -> tuple[torch.Tensor, TrainBatch]:
    """(logprobs [T] requiring a gradient, the batch): old and reference log-probabilities drift from them."""
    total = sum(lengths)
    logprobs = (-2 + numbers(0, total)).requires_grad_()
    advantages = torch.tensor(ADVANTAGES[: len(lengths)], dtype=torch.float64)
    batch = TrainBatch(
        sequence_index=torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths)),
        lengths=torch.tensor(lengths),
        advantages=advantages,
        old_logprobs=logprobs.detach() + numbers(1, total, drift),
        ref_logprobs=logprobs.detach() + numbers(2, total, 0.5),
        token_weight=None,
        importance_weight=None,
        pairs=torch.tensor([[0, 1], [2, 3]]),
        num_sequences=len(lengths),
        num_tokens=total,
        num_pairs=2,
        max_new_tokens=7,
        chosen=torch.tensor(CHOSEN[: len(lengths)]),
        num_chosen=sum(CHOSEN[: len(lengths)]),
    )
    return logprobs, batch


def entropies(batch: TrainBatch) -> torch.Tensor:
    return 1 + numbers(3, int(batch.lengths.sum())).abs()


def scores(logprobs: torch.Tensor, batch: TrainBatch) -> TokenScores:
    return TokenScores(logprobs=logprobs, entropies=entropies(batch))


def value(loss: Any, logprobs: torch.Tensor, batch: TrainBatch) -> torch.Tensor:
    return loss(scores(logprobs, batch), batch).loss


def gradient(loss: Any, logprobs: torch.Tensor, batch: TrainBatch) -> torch.Tensor:
    (found,) = torch.autograd.grad(value(loss, logprobs, batch), logprobs, allow_unused=True)
    return torch.zeros_like(logprobs) if found is None else found


def by_sequence(tokens: torch.Tensor, batch: TrainBatch) -> torch.Tensor:
    """[T] → [B], one at a time."""
    return torch.stack([tokens[batch.sequence_index == row].sum() for row in range(len(batch.lengths))])


def part(batch: TrainBatch, rows: Sequence[int]) -> tuple[torch.Tensor, TrainBatch]:
    """(bool [T] of the rows' tokens, the micro-batch of these rows with the totals of the whole)."""
    kept = torch.isin(batch.sequence_index, torch.tensor(rows))
    place = {row: index for index, row in enumerate(rows)}

    def cut(tokens: torch.Tensor | None) -> torch.Tensor | None:
        return None if tokens is None else tokens[kept]

    assert batch.pairs is not None
    pairs = [[place[a], place[b]] for a, b in batch.pairs.tolist() if a in place and b in place]
    return kept, replace(
        batch,
        sequence_index=torch.tensor([place[row] for row in batch.sequence_index[kept].tolist()], dtype=torch.long),
        lengths=batch.lengths[list(rows)],
        advantages=batch.advantages[list(rows)],
        old_logprobs=cut(batch.old_logprobs),
        ref_logprobs=cut(batch.ref_logprobs),
        token_weight=cut(batch.token_weight),
        importance_weight=cut(batch.importance_weight),
        pairs=torch.tensor(pairs, dtype=torch.long).reshape(-1, 2),
        chosen=None if batch.chosen is None else batch.chosen[list(rows)],
    )


def check_shares_add_up(loss: Any) -> None:
    """Loss, gradient and metrics of every split into micro-batches are those of the whole."""
    logprobs, batch = make_batch()
    table = entropies(batch)
    whole = loss(TokenScores(logprobs=logprobs, entropies=table), batch)
    expected = gradient(loss, logprobs, batch)
    splits: list[list[list[int]]] = [[[0, 1], [2, 3]]]
    if not loss.needs_pairs:
        splits += [[[0], [1], [2], [3]], [[0, 2], [1, 3]], [[0, 1, 2], [3]]]
    for split in splits:
        shares, metrics, total = [], [], torch.zeros_like(logprobs)
        for rows in split:
            kept, micro = part(batch, rows)
            output = loss(TokenScores(logprobs=logprobs[kept], entropies=table[kept]), micro)
            shares.append(output.loss)
            metrics.append(output.metrics)
            total = total + torch.autograd.grad(output.loss, logprobs)[0]
        assert torch.allclose(torch.stack(shares).sum(), whole.loss, atol=1e-12)
        assert torch.allclose(total, expected, atol=1e-12)
        merged, complete = values(merge(metrics)), values(whole.metrics)
        assert merged.keys() == complete.keys()
        assert all(abs(merged[name] - complete[name]) < 1e-12 for name in complete)


def check_context_tokens_count_nowhere(loss: Any) -> None:
    """A batch with tokens of weight 0 is the batch without them."""
    logprobs, batch = make_batch()
    weight = torch.ones_like(logprobs)
    weight[[1, 5, 8]] = 0
    kept = weight > 0
    lengths = by_sequence(weight, batch).long()
    weighted = replace(batch, token_weight=weight, lengths=lengths, num_tokens=int(weight.sum()))
    assert batch.old_logprobs is not None
    assert batch.ref_logprobs is not None
    shorter = replace(
        batch,
        sequence_index=batch.sequence_index[kept],
        lengths=lengths,
        old_logprobs=batch.old_logprobs[kept],
        ref_logprobs=batch.ref_logprobs[kept],
        num_tokens=int(weight.sum()),
    )
    table = entropies(batch)
    one = loss(TokenScores(logprobs=logprobs, entropies=table), weighted)
    other = loss(TokenScores(logprobs=logprobs[kept], entropies=table[kept]), shorter)
    assert torch.allclose(one.loss, other.loss, atol=1e-12)
    found = torch.autograd.grad(one.loss, logprobs)[0]
    assert torch.allclose(found[kept], torch.autograd.grad(other.loss, logprobs)[0][kept], atol=1e-12)
    assert not found[~kept].any()


def check_finite_differences(loss: Any) -> None:
    logprobs, batch = make_batch()
    assert torch.autograd.gradcheck(lambda tokens: value(loss, tokens, batch), (logprobs,), atol=1e-7)


def check_all(make: Callable[[], Any]) -> None:
    """What must hold for every loss."""
    for check in (check_shares_add_up, check_context_tokens_count_nowhere, check_finite_differences):
        check(make())
