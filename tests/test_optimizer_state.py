"""An optimizer that was saved and loaded goes on as if nothing had been."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pggrpo_cli.errors import CheckpointError
from pggrpo_cli.optimizer.muon import Muon
from pggrpo_cli.optimizer_state import load_optimizer_state, optimizer_state

muon = partial(
    Muon,
    lr=1e-2,
    weight_decay=0.1,
    momentum=0.95,
    nesterov=True,
    newton_schulz_steps=5,
    betas=[0.9, 0.99],
    eps=1e-8,
)
OPTIMIZERS = {
    "adamw": partial(torch.optim.AdamW, lr=1e-2, betas=[0.9, 0.99], weight_decay=0.1, fused=True),  # type: ignore[arg-type]
    "adamw_foreach": partial(torch.optim.AdamW, lr=1e-2, foreach=True, amsgrad=True),
    "sgd": partial(torch.optim.SGD, lr=1e-2),
    "sgd_momentum": partial(torch.optim.SGD, lr=1e-2, momentum=0.9, nesterov=True),
    "adafactor": partial(torch.optim.Adafactor, lr=1e-2),
    "muon": muon,
}


class Tiny(torch.nn.Module):
    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        for name, shape in {"embed": (7, 4), "wide": (4, 6), "tall": (6, 4), "bias": (6,), "scale": ()}.items():
            value = torch.randn(shape, generator=generator).to(dtype)
            setattr(self, name, torch.nn.Parameter(value))
        self.unused = torch.nn.Parameter(torch.ones(2, 2))


def train(model: Tiny, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
    for step in range(first, last):
        generator = torch.Generator().manual_seed(step)
        for name, parameter in model.named_parameters():
            if name != "unused":
                parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 / (step + 1)
        optimizer.step()


def through_files(state: tuple[dict[str, torch.Tensor], dict[str, Any]], folder: Path) -> Any:
    save_file(state[0], folder / "optimizer.safetensors")
    return load_file(folder / "optimizer.safetensors"), json.loads(json.dumps(state[1], allow_nan=False))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_goes_on_bit_for_bit(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    straight, stopped, resumed = Tiny(dtype), Tiny(dtype), Tiny(dtype)
    optimizer = OPTIMIZERS[name](list(straight.named_parameters()))
    train(straight, optimizer, 0, 6)

    before = OPTIMIZERS[name](list(stopped.named_parameters()))
    train(stopped, before, 0, 3)
    tensors, groups = through_files(optimizer_state(before, stopped.named_parameters()), tmp_path)
    resumed.load_state_dict(stopped.state_dict())
    after = OPTIMIZERS[name](list(resumed.named_parameters()))
    load_optimizer_state(after, resumed.named_parameters(), tensors, groups)
    train(resumed, after, 3, 6)

    for (key, expected), found in zip(straight.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(expected, found), key
    expected_state = optimizer_state(optimizer, straight.named_parameters())
    found_state = optimizer_state(after, resumed.named_parameters())
    assert json.dumps(expected_state[1]) == json.dumps(found_state[1])
    assert expected_state[0].keys() == found_state[0].keys()
    for key, tensor in expected_state[0].items():
        assert tensor.dtype == found_state[0][key].dtype, key
        assert tensor.device == found_state[0][key].device, key
        assert torch.equal(tensor, found_state[0][key]), key


def test_keys_are_parameter_names() -> None:
    model = Tiny()
    optimizer = OPTIMIZERS["adamw"](list(model.named_parameters()))
    train(model, optimizer, 0, 2)
    tensors, groups = optimizer_state(optimizer, model.named_parameters())
    assert set(tensors) == {
        f"{name}/{key}"
        for name in ("embed", "wide", "tall", "bias", "scale")
        for key in ("step", "exp_avg", "exp_avg_sq")
    }
    assert tensors["wide/step"].shape == ()
    assert groups["param_groups"][0]["params"] == [name for name, _ in model.named_parameters()]


def test_another_order_of_parameters_does_not_matter() -> None:
    model = Tiny()
    optimizer = OPTIMIZERS["adamw"](list(model.named_parameters()))
    train(model, optimizer, 0, 2)
    tensors, groups = optimizer_state(optimizer, model.named_parameters())
    after = OPTIMIZERS["adamw"](list(reversed(list(model.named_parameters()))))
    load_optimizer_state(after, model.named_parameters(), tensors, groups)
    assert torch.equal(after.state[model.wide]["exp_avg"], optimizer.state[model.wide]["exp_avg"])


def test_the_loaded_state_shares_no_memory_with_what_was_read() -> None:
    model = Tiny()
    optimizer = OPTIMIZERS["adamw"](list(model.named_parameters()))
    train(model, optimizer, 0, 1)
    tensors, groups = optimizer_state(optimizer, model.named_parameters())
    kept = {name: tensor.clone() for name, tensor in tensors.items()}
    after = OPTIMIZERS["adamw"](list(model.named_parameters()))
    load_optimizer_state(after, model.named_parameters(), kept, groups)
    train(model, after, 1, 2)
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in kept.items())


def test_hyperparameters_come_from_the_checkpoint_unless_kept() -> None:
    model = Tiny()
    optimizer = OPTIMIZERS["adamw"](list(model.named_parameters()))
    train(model, optimizer, 0, 3)
    state = optimizer_state(optimizer, model.named_parameters())
    after = torch.optim.AdamW(model.named_parameters(), lr=5.0, weight_decay=0.7, fused=True)
    load_optimizer_state(after, model.named_parameters(), *state, keep=["weight_decay"])
    assert after.param_groups[0]["lr"] == 1e-2 / 3
    assert after.param_groups[0]["weight_decay"] == 0.7


@pytest.mark.parametrize("fused", [True, False])
def test_steps_are_counted_where_the_optimizer_counts_them(fused: bool) -> None:
    model = torch.nn.Linear(2, 3, device="meta")
    optimizer = torch.optim.AdamW(model.named_parameters(), fused=False)
    optimizer.param_groups[0]["fused"] = fused  # a device that is no CPU, without one
    groups = optimizer_state(optimizer, model.named_parameters())[1]
    tensors = {"weight/step": torch.tensor(1.0), "weight/exp_avg": torch.ones(3, 2)}
    load_optimizer_state(optimizer, model.named_parameters(), tensors, groups)
    assert optimizer.state[model.weight]["step"].device.type == ("meta" if fused else "cpu")
    assert optimizer.state[model.weight]["exp_avg"].device.type == "meta"


def test_another_model_is_refused() -> None:
    model = Tiny()
    optimizer = OPTIMIZERS["muon"](list(model.named_parameters()))
    train(model, optimizer, 0, 1)
    state = optimizer_state(optimizer, model.named_parameters())
    other = torch.nn.Linear(2, 3)
    with pytest.raises(CheckpointError, match="embed, scale"):
        load_optimizer_state(OPTIMIZERS["muon"](list(other.named_parameters())), other.named_parameters(), *state)
    with pytest.raises(CheckpointError, match="grouped differently"):
        load_optimizer_state(OPTIMIZERS["sgd"](list(model.named_parameters())), model.named_parameters(), *state)
    tensors = {**state[0], "gone/exp_avg": torch.ones(1)}
    with pytest.raises(CheckpointError, match="gone"):
        load_optimizer_state(
            OPTIMIZERS["muon"](list(model.named_parameters())), model.named_parameters(), tensors, state[1]
        )
