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
