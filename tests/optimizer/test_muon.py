"""Muon: which parameters it takes, what it does to them."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from pggrpo_cli.learning_rate import LearningRate
from pggrpo_cli.optimizer.muon import Muon, orthogonalized

NAMES = {
    "model.embed_tokens.weight": (9, 4),
    "transformer.wte.weight": (9, 4),
    "model.layers.0.q_proj.weight": (4, 6),
    "model.layers.0.down_proj.weight": (8, 3),
    "model.layers.0.experts": (2, 4, 4),
    "model.norm.weight": (4,),
    "lm_head.weight": (9, 4),
}
muon = partial(
    Muon, lr=0.1, weight_decay=0.0, momentum=0.0, nesterov=False, newton_schulz_steps=5, betas=[0.9, 0.99], eps=1e-8
)


def parameters() -> list[tuple[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(3)
    made = [(name, torch.nn.Parameter(torch.randn(shape, generator=generator))) for name, shape in NAMES.items()]
    for _, parameter in made:
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    return made


@pytest.mark.parametrize("shape", [(5, 8), (8, 5), (6, 6), (1, 4)])
def test_orthogonalized_has_the_singular_vectors_and_values_of_about_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 1e-3
    result = orthogonalized(matrix, 5)
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    core = u.T @ result @ vh.T
    diagonal = core.diagonal()
    assert ((diagonal > 0.6) & (diagonal < 1.3)).all(), diagonal
    assert torch.allclose(core, torch.diag(diagonal), atol=1e-4)
    assert result.dtype == matrix.dtype


def test_a_zero_matrix_stays_zero() -> None:
    assert torch.equal(orthogonalized(torch.zeros(3, 4), 5), torch.zeros(3, 4))


def test_matrices_are_its_own_the_rest_is_adamws() -> None:
    optimizer = muon(parameters())
    matrices, rest = optimizer.param_groups
    assert matrices["param_names"] == ["model.layers.0.q_proj.weight", "model.layers.0.down_proj.weight"]
    assert rest["param_names"] == [name for name in NAMES if name not in matrices["param_names"]]


def test_the_rest_moves_as_under_adamw() -> None:
    ours, theirs = parameters(), parameters()
    optimizer = muon(ours, weight_decay=0.3)
    adamw = torch.optim.AdamW(theirs, lr=0.1, weight_decay=0.3, betas=(0.9, 0.99), eps=1e-8, fused=True)
    for _ in range(3):
        optimizer.step()
        adamw.step()
    for (name, mine), (_, other) in zip(ours, theirs, strict=True):
        assert torch.equal(mine, other) == ("proj" not in name), name


def test_the_equation() -> None:
    (name, weight), before = parameters()[2], parameters()[2][1].detach().clone()
    assert weight.grad is not None
    first = weight.grad.clone()
    optimizer = muon([(name, weight)], momentum=0.9, nesterov=True, weight_decay=0.5)
    optimizer.step()
    momentum = 0.1 * first
    expected = before * (1 - 0.1 * 0.5)
    expected -= 0.1 * 0.2 * math.sqrt(6) * orthogonalized(0.1 * first + 0.9 * momentum, 5)
    assert torch.allclose(weight, expected, atol=1e-6)
    second = torch.randn(first.shape, generator=torch.Generator().manual_seed(9))
    weight.grad = second
    optimizer.step()
    momentum = 0.9 * momentum + 0.1 * second
    expected = expected * (1 - 0.1 * 0.5)
    expected -= 0.1 * 0.2 * math.sqrt(6) * orthogonalized(0.1 * second + 0.9 * momentum, 5)
    assert torch.allclose(weight, expected, atol=1e-6)


def test_without_nesterov_the_momentum_itself() -> None:
    ((name, weight),) = parameters()[2:3]
    assert weight.grad is not None
    before, gradient = weight.detach().clone(), weight.grad.clone()
    muon([(name, weight)], momentum=0.5).step()
    expected = before - 0.1 * 0.2 * math.sqrt(6) * orthogonalized(0.5 * gradient, 5)
    assert torch.allclose(weight, expected, atol=1e-6)


def test_an_update_has_the_size_of_adamws() -> None:
    weight = torch.nn.Parameter(torch.zeros(64, 48))
    weight.grad = torch.randn(64, 48, generator=torch.Generator().manual_seed(0))
    muon([("q_proj.weight", weight)], lr=1.0).step()
    assert 0.13 < float(weight.detach().square().mean().sqrt()) < 0.26


def test_parameters_without_a_gradient_stay() -> None:
    named = parameters()
    for _, parameter in named:
        parameter.grad = None
    before = [parameter.detach().clone() for _, parameter in named]
    muon(named).step()
    assert all(torch.equal(old, new) for old, (_, new) in zip(before, named, strict=True))


def test_a_schedule_reaches_both_parts() -> None:
    named = parameters()
    before = [parameter.detach().clone() for _, parameter in named]
    optimizer = muon(named)
    LearningRate(optimizer, lambda update: 0.0)
    optimizer.step()
    assert all(torch.equal(old, new) for old, (_, new) in zip(before, named, strict=True))


def test_torchs_own_way_of_loading_keeps_both_parts_together() -> None:
    named = parameters()
    optimizer = muon(named)
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())  # replaces the groups and the state
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = [parameter.detach().clone() for _, parameter in named]
    optimizer.step()
    assert all(torch.equal(old, new) for old, (_, new) in zip(before, named, strict=True))
    assert float(optimizer.state[named[0][1]]["step"]) == 2


def test_it_needs_names_and_gets_along_with_matrices_or_vectors_alone() -> None:
    named = parameters()
    with pytest.raises(ValueError, match="named_parameters"):
        muon([parameter for _, parameter in named])
    assert muon(named[2:3]).step() is None
    assert muon(named[-2:-1]).step() is None
    assert muon(named).step(lambda: 1.5) == 1.5
