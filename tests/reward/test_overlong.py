"""DAPO equation 13 by hand."""

from __future__ import annotations

import pytest

from pggrpo_cli.errors import ConfigError
from pggrpo_cli.reward.overlong import Overlong
from pggrpo_cli.types import Sample


def samples(*lengths: int) -> list[Sample]:
    return [
        Sample(prompt="p", completion="", completion_ids=[0] * n, finish_reason="stop", columns={}) for n in lengths
    ]


def test_soft_punishment() -> None:
    reward = Overlong(max_tokens=20, margin_tokens=4)
    assert reward.score(samples(1, 16, 17, 18, 20, 30)) == [0.0, 0.0, -0.25, -0.5, -1.0, -1.0]


def test_a_margin_wider_than_the_limit() -> None:
    with pytest.raises(ConfigError, match="margin_tokens"):
        Overlong(max_tokens=2, margin_tokens=4).score(samples(1))
