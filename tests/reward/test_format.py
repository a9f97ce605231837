"""Forms as regular expressions."""

from __future__ import annotations

import pytest

from pggrpo_cli.errors import ConfigError
from pggrpo_cli.reward.format import Format
from pggrpo_cli.types import Sample


def score(reward: Format, *texts: str) -> list[float | None]:
    return reward.score(
        [Sample(prompt="p", completion=t, completion_ids=[0], finish_reason="stop", columns={}) for t in texts]
    )


def test_whole_or_part() -> None:
    texts = ("12", "12 and more", "none", "")
    assert score(Format(pattern=r"\d+", mode="fullmatch"), *texts) == [1, 0, 0, 0]
    assert score(Format(pattern=r"\d+", mode="search"), *texts) == [1, 1, 0, 0]


def test_a_dot_matches_line_breaks() -> None:
    assert score(Format(pattern="<think>.*</think>.+", mode="fullmatch"), "<think>a\nb</think>\nc") == [1]


def test_a_broken_pattern() -> None:
    with pytest.raises(ConfigError, match=r"`reward.format.pattern`"):
        score(Format(pattern="[", mode="search"), "x")
