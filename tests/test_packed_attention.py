"""Attention of a packed row against every sequence by itself, forward and gradients."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from pggrpo_cli import packed_attention
from pggrpo_cli.attention import Heads
from pggrpo_cli.packed_attention import PackedGroup, PackedPlan

NUM_HEADS, NUM_KEY_HEADS, SIZE = 4, 2, 3
GROUPS = (((5), (3, 0, 4)), ((1), (2,)), ((4), ()), ((2), (0, 0)), ((3), (2, 2)))


def plan_of(groups: Sequence[tuple[int, tuple[int, ...]]]) -> tuple[PackedPlan, int]:
    packed, start = [], 0
    for prompt, completions in groups:
        packed.append(PackedGroup(start, prompt, completions))
        start += packed[-1].num_tokens
    return PackedPlan(packed, torch.float64), start


def by_itself(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, heads: Heads) -> torch.Tensor:
    """One sequence [H, L, D], its definition."""
    length = query.shape[1]
    key, value = (part.repeat_interleave(NUM_HEADS // NUM_KEY_HEADS, 0) for part in (key, value))
    scores = query @ key.transpose(1, 2) * (heads.scaling or SIZE**-0.5)
    if heads.softcap is not None:
        scores = heads.softcap * torch.tanh(scores / heads.softcap)
    distance = torch.arange(length)[:, None] - torch.arange(length)[None]
    hidden = (distance < 0) | (distance >= (heads.sliding_window or length))
    return scores.masked_fill(hidden, float("-inf")).softmax(-1) @ value


def expected(plan: PackedPlan, heads: Heads, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    parts = []
    for group in plan.groups:
        prompt = slice(group.start, group.start + group.prompt_length)
        parts.append(by_itself(*(part[:, prompt] for part in tensors), heads))  # type: ignore[call-arg, arg-type]
        start = prompt.stop
        for length in group.completion_lengths:
            whole = [torch.cat([part[:, prompt], part[:, start : start + length]], 1) for part in tensors]
            parts.append(by_itself(*whole, heads)[:, group.prompt_length :])  # type: ignore[call-arg, arg-type]
            start += length
    return torch.cat(parts, 1)


@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("block", [10_000, 60, 9], ids=["one block", "blocks of rows", "blocks of queries"])
def test_packed_is_each_sequence_by_itself(
    block: int, window: int | None, softcap: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed_attention, "BLOCK_ELEMENTS", block)
    plan, tokens = plan_of(GROUPS)
    generator = torch.Generator().manual_seed(1)
    tensors = [
        torch.randn(num, tokens, SIZE, dtype=torch.float64, generator=generator).requires_grad_()
        for num in (NUM_HEADS, NUM_KEY_HEADS, NUM_KEY_HEADS)
    ]
    heads = Heads(*tensors, layer=0, scaling=0.7, sliding_window=window, softcap=softcap)
    found, wanted = plan.attend(heads), expected(plan, heads, tensors)
    assert torch.allclose(found, wanted, atol=1e-12)
    grad = torch.randn(found.shape, dtype=torch.float64, generator=generator)
    for ours, theirs in zip(
        torch.autograd.grad(found, tensors, grad), torch.autograd.grad(wanted, tensors, grad), strict=True
    ):
        assert torch.allclose(ours, theirs, atol=1e-12)


def test_blocks_are_as_small_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    plan, _ = plan_of([(5, (3, 2, 4))])
    assert [r.queries.rows for r in plan.rectangles(NUM_HEADS, torch.device("cpu"))] == [1, 3]
    for block, sizes in (
        (80, [(1, 4), (1, 1), (1, 2), (1, 1), (1, 2), (1, 2), (1, 2)]),
        (144, [(1, 5), (1, 3), (1, 2), (1, 4)]),
    ):
        monkeypatch.setattr(packed_attention, "BLOCK_ELEMENTS", block)
        plan, _ = plan_of([(5, (3, 2, 4))])
        found = plan.rectangles(NUM_HEADS, torch.device("cpu"))
        assert [(r.queries.rows, r.queries.width) for r in found] == sizes
