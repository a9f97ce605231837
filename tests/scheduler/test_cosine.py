from __future__ import annotations

import pytest
import torch

from pggrpo_cli.errors import ConfigError
from pggrpo_cli.scheduler.cosine import Cosine


def rates(component: Cosine, total: int, count: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = component(optimizer, total_updates=total)
    found = []
    for _ in range(count):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_it_falls_on_half_a_cosine() -> None:
    found = rates(Cosine(warmup_updates=0, final_fraction=0.0), 4, 6)
    assert found == pytest.approx([2.0, 1 + 0.5**0.5, 1.0, 1 - 0.5**0.5, 0.0, 0.0])
    found = rates(Cosine(warmup_updates=1, final_fraction=0.5), 5, 6)
    assert found == pytest.approx([1.0, 2.0, 1.5 + 0.5**1.5, 1.5, 1.5 - 0.5**1.5, 1.0])


def test_a_warmup_longer_than_the_run_is_refused() -> None:
    with pytest.raises(ConfigError, match="warmup_updates"):
        rates(Cosine(warmup_updates=9, final_fraction=0.0), 4, 1)
