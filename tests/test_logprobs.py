"""Chunked log-probabilities against log_softmax, and their gradients against finite differences."""

from __future__ import annotations

import pytest
import torch

from pggrpo_cli import logprobs
from pggrpo_cli.logprobs import Head, token_logprobs


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logprobs, "TILE_ROWS", 3)
    monkeypatch.setitem(logprobs.TILE_COLUMNS, "cpu", 4)


def inputs(bias: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    make = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()  # noqa: E731
    return make(8, 5), make(11, 5), make(11) if bias else None, torch.randint(0, 11, (8,), generator=generator)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_values_are_those_of_log_softmax(bias: bool, softcap: float | None) -> None:
    hidden, weight, offset, targets = inputs(bias)
    found, entropies = token_logprobs(hidden, Head(weight, offset, softcap, torch.float64), targets, 0.6, True)
    logits = hidden @ weight.T + (0 if offset is None else offset)
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    table = (logits / 0.6).log_softmax(-1)
    assert torch.allclose(found, table[torch.arange(8), targets], atol=1e-12)
    assert entropies is not None
    assert torch.allclose(entropies, -(table.exp() * table).sum(-1), atol=1e-12)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_gradients_are_those_of_finite_differences(bias: bool, softcap: float | None) -> None:
    hidden, weight, offset, targets = inputs(bias)

    def both(hidden: torch.Tensor, weight: torch.Tensor, offset: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        values, entropies = token_logprobs(hidden, Head(weight, offset, softcap, torch.float64), targets, 0.6, True)
        assert entropies is not None
        return values, entropies

    assert torch.autograd.gradcheck(both, (hidden, weight, offset), atol=1e-7)


def test_entropy_without_use_costs_no_gradient() -> None:
    hidden, weight, _, targets = inputs(False)
    head = Head(weight, None, None, torch.float64)
    token_logprobs(hidden, head, targets, 1.0, True)[0].sum().backward()
    with_entropy = hidden.grad.clone()
    hidden.grad = None
    token_logprobs(hidden, head, targets, 1.0, False)[0].sum().backward()
    assert torch.equal(with_entropy, hidden.grad)


def test_a_forbidden_token_leaves_entropy_and_gradients_finite() -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(3, 4, requires_grad=True), torch.randn(7, 4, requires_grad=True)
    bias = torch.zeros(7)
    bias[2] = float("-inf")
    head = Head(weight, bias, None, torch.float32)
    logprobs, entropies = token_logprobs(hidden, head, torch.tensor([0, 1, 3]), 0.8, True)
    assert entropies is not None
    (logprobs.sum() + entropies.sum()).backward()
    kept = [index for index in range(7) if index != 2]
    table = (hidden.detach() @ weight.detach()[kept].T / 0.8).log_softmax(-1)
    assert torch.allclose(entropies, -(table.exp() * table).sum(-1), atol=1e-5)
    assert bool(hidden.grad.isfinite().all())
    assert bool(weight.grad.isfinite().all())


def test_scaled_logits() -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(5, 4, dtype=torch.float64, requires_grad=True), torch.randn(7, 4, dtype=torch.float64)
    targets = torch.tensor([0, 1, 3, 6, 6])

    def scores(rows: torch.Tensor) -> torch.Tensor:
        head = Head(weight, None, 5.0, torch.float64, scale=0.3)
        logprobs, entropies = token_logprobs(rows, head, targets, 0.8, True)
        assert entropies is not None
        return logprobs.sum() + (entropies * torch.arange(5)).sum()

    assert torch.autograd.gradcheck(scores, (hidden,))
