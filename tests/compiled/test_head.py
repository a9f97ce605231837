"""head.c against torch's own passes, in float64 and in its own dtype."""

from __future__ import annotations

import pytest
import torch

from pggrpo_cli import logprobs
from pggrpo_cli.compiled import update
from pggrpo_cli.logprobs import Head, token_logprobs
from tests.compiled.here import compiled_library

Found = tuple[torch.Tensor, ...]
CPU = torch.device("cpu")


def needs_library(dtype: torch.dtype) -> None:
    compiled_library(bfloat16=dtype == torch.bfloat16)
    assert update.library_or_none(dtype, CPU) is not None


def scores(dtype: torch.dtype, wide: torch.dtype, rows: int, slopes: tuple[bool, bool] = (True, True)) -> Found:
    """Log-probabilities, entropies, and a gradient of hidden and weight; 203 entries: the last tile is narrow."""
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(rows, 24, generator=generator).to(wide).requires_grad_()
    weight = torch.randn(203, 24, generator=generator).to(wide).requires_grad_()
    targets = torch.randint(0, 203, (rows,), generator=generator)
    found, entropies = token_logprobs(hidden, Head(weight, None, None, dtype, 1.3), targets, 0.7, True)
    assert entropies is not None
    counted = torch.arange(1, rows + 1)
    total = (found * counted).sum() * slopes[0] + (entropies * counted.flip(0)).sum() * slopes[1]
    return found.detach(), entropies.detach(), *torch.autograd.grad(total, (hidden, weight))


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logprobs, "TILE_ROWS", 16)
    monkeypatch.setitem(logprobs.TILE_COLUMNS, "cpu", 64)


@pytest.mark.parametrize("slopes", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("rows", [1, 37])
def test_float32_is_float64_to_rounding(rows: int, slopes: tuple[bool, bool]) -> None:
    needs_library(torch.float32)
    wanted, found = (
        scores(torch.float64, torch.float64, rows, slopes),
        scores(torch.float32, torch.float32, rows, slopes),
    )
    for ours, theirs in zip(found, wanted, strict=True):
        assert float((ours - theirs).norm() / theirs.norm()) < 1e-5


def test_bfloat16_rounds_where_torch_does() -> None:
    needs_library(torch.bfloat16)
    found = scores(torch.bfloat16, torch.float32, 37)
    with update.in_torch():
        wanted = scores(torch.bfloat16, torch.float32, 37)
    assert any(not torch.equal(ours, theirs) for ours, theirs in zip(found, wanted, strict=True))  # other code
    for ours, theirs, tolerance in zip(found, wanted, (1e-5, 1e-5, 4e-3, 4e-3), strict=True):
        assert float((ours - theirs).norm() / theirs.norm()) < tolerance


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_threads_do_not_matter(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    needs_library(dtype)
    several = scores(dtype, torch.float32, 37)
    # Of head.c alone: torch's own products may depend on its threads.
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert all(
        torch.equal(ours, theirs) for ours, theirs in zip(scores(dtype, torch.float32, 37), several, strict=True)
    )


def test_logits_that_are_no_numbers_stay_none() -> None:
    needs_library(torch.float32)
    weight = torch.ones(40, 4)
    weight[30] = torch.nan
    found, entropies = token_logprobs(
        torch.ones(2, 4), Head(weight, None, None, torch.float32), torch.tensor([0, 1]), 1.0, True
    )
    assert entropies is not None
    assert bool(found.isnan().all())
    assert bool(entropies.isnan().all())


def test_what_it_does_not_compute_is_left_to_torch() -> None:
    """A softcap, a bias, float64: values there are tested in test_logprobs.py, with tiles of torch."""
    needs_library(torch.float32)
    plain = Head(torch.ones(3, 2), None, None, torch.float32)
    tiles = lambda head, wide=torch.float32: logprobs._compiled_tiles(head, wide, 1.0, CPU)  # noqa: E731
    assert tiles(plain) is not None
    assert tiles(Head(plain.weight, torch.ones(3), None, torch.float32)) is None
    assert tiles(Head(plain.weight, None, 2.0, torch.float32)) is None
    assert tiles(Head(plain.weight, None, None, torch.float64), torch.float64) is None
    with update.in_torch():
        assert tiles(plain) is None
