from __future__ import annotations

import pytest
import torch

from pggrpo_cli.errors import ConfigError
from pggrpo_cli.scheduler.linear import Linear


def rates(component: Linear, total: int, count: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = component(optimizer, total_updates=total)
    found = []
    for _ in range(count):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_it_falls_to_its_end_and_stays() -> None:
    assert rates(Linear(warmup_updates=0, final_fraction=0.0), 4, 6) == [2.0, 1.5, 1.0, 0.5, 0.0, 0.0]
    assert rates(Linear(warmup_updates=0, final_fraction=0.5), 4, 6) == [2.0, 1.75, 1.5, 1.25, 1.0, 1.0]


def test_it_rises_first() -> None:
    assert rates(Linear(warmup_updates=1, final_fraction=0.0), 5, 5) == [1.0, 2.0, 1.5, 1.0, 0.5]


def test_a_warmup_longer_than_the_run_is_refused() -> None:
    with pytest.raises(ConfigError, match="warmup_updates"):
        rates(Linear(warmup_updates=4, final_fraction=0.0), 4, 1)


def test_a_resumed_run_has_the_same_rates_to_the_bit() -> None:
    component = Linear(warmup_updates=2, final_fraction=0.1)
    straight = rates(component, 17, 17)
    for stop in range(17):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
        schedule = component(optimizer, total_updates=17)
        schedule.load_state_dict({"updates": stop})
        assert optimizer.param_groups[0]["lr"] == straight[stop]
