from __future__ import annotations

import pytest
import torch

from pggrpo_cli.errors import ConfigError
from pggrpo_cli.learning_rate import LearningRate
from pggrpo_cli.scheduler.constant import Constant


def optimizer(lr: float = 1.0) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def rates(schedule: LearningRate, count: int) -> list[float]:
    found = []
    for _ in range(count):
        found.append(schedule.optimizer.param_groups[0]["lr"])
        schedule.optimizer.step()
        schedule.step()
    return found


def test_it_rises_then_stays() -> None:
    schedule = Constant(warmup_updates=3)(optimizer(2.0), total_updates=6)
    assert rates(schedule, 6) == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]
    assert rates(Constant(warmup_updates=0)(optimizer(), total_updates=1), 1) == [1.0]


def test_a_warmup_longer_than_the_run_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"scheduler\.warmup_updates.*6 updates"):
        Constant(warmup_updates=6)(optimizer(), total_updates=6)


def test_its_state_is_the_count_and_the_lr_follows_the_configuration() -> None:
    first = Constant(warmup_updates=3)(optimizer(2.0), total_updates=9)
    rates(first, 2)
    assert first.state_dict() == {"updates": 2}
    resumed = Constant(warmup_updates=3)(optimizer(2.0), total_updates=9)
    resumed.load_state_dict({"updates": 2})
    assert resumed.get_last_lr() == first.get_last_lr() == [1.5]
    assert rates(resumed, 5) == rates(first, 5)
    changed = Constant(warmup_updates=3)(optimizer(8.0), total_updates=9)
    changed.optimizer.param_groups[0].update({"lr": 1.5, "initial_lr": 2.0})  # as the optimizer's own state had it
    changed.load_state_dict({"updates": 2})
    assert rates(changed, 3) == [6.0, 8.0, 8.0]
