"""Nearness to a length."""

from __future__ import annotations

from pggrpo_cli.reward.length import Length
from pggrpo_cli.types import Sample


def test_one_at_the_target_falling_to_minus_one() -> None:
    reward = Length(target_tokens=10, scale_tokens=5.0)
    samples = [
        Sample(prompt="p", completion="", completion_ids=[0] * n, finish_reason="stop", columns={})
        for n in (10, 5, 15, 12, 0, 40)
    ]
    assert reward.score(samples) == [1.0, 0.0, 0.0, 0.6, -1.0, -1.0]
