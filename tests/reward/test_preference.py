"""What the data set says of its own completions."""

from __future__ import annotations

from pggrpo_cli.reward.preference import Preference
from pggrpo_cli.types import Sample


def test_chosen_rejected_and_sampled() -> None:
    samples = [
        Sample(prompt="p", completion="", completion_ids=[0], finish_reason="offline", columns={}, preference=value)
        for value in (1.0, 0.0, None)
    ]
    assert Preference().score(samples) == [1.0, 0.0, None]
