"""needs_zero_advantages is the truth for every loss: what it allows to leave out has no gradient, and the rest has one."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.loss.batches import gradient, make_batch

OPTIONS = sorted(Path("conf/loss").glob("*.yaml"), key=lambda file: file.name)


def loss_of(option: Path, **changes: Any) -> Any:
    """The loss as its YAML sets it up, with those of `changes` that it has."""
    keys = yaml.safe_load(option.read_text())
    module, _, name = keys.pop("_target_").rpartition(".")
    changed = {key: value for key, value in changes.items() if key in keys}
    return getattr(importlib.import_module(module), name)(**keys | changed)


def gradient_without_advantage(loss: Any) -> torch.Tensor:
    """Of the tokens of two completions whose advantage is 0, with everything that can matter: drift, weights, pairs."""
    logprobs, batch = make_batch()
    advantages = batch.advantages.clone()
    advantages[[1, 2]] = 0
    batch = replace(batch, advantages=advantages, importance_weight=torch.full_like(logprobs.detach(), 1.5))
    found = gradient(loss, logprobs, batch)
    silent = (batch.sequence_index == 1) | (batch.sequence_index == 2)
    assert found[~silent].abs().max() > 1e-4
    return found[silent]


@pytest.mark.parametrize("option", OPTIONS, ids=lambda file: file.stem)
@pytest.mark.parametrize("coefficient", ["none", "kl_coef", "entropy_coef", "nll_coef"])
def test_it_says_whether_a_completion_without_advantage_has_a_gradient(option: Path, coefficient: str) -> None:
    if coefficient not in ("none", *yaml.safe_load(option.read_text())):
        coefficient = "none"
    loss = loss_of(option, **{"kl_coef": 0.0, "entropy_coef": 0.0, "nll_coef": 0.0} | {coefficient: 0.1})
    if coefficient == "entropy_coef":  # its gradient goes through the entropies, not the log-probabilities
        assert loss.needs_zero_advantages
    else:
        assert bool(gradient_without_advantage(loss).any()) == loss.needs_zero_advantages


def test_all_losses_are_here() -> None:
    assert len(OPTIONS) >= 11
