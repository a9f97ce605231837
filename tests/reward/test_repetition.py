"""The share of n-grams that come again, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from pggrpo_cli.reward.repetition import Repetition
from pggrpo_cli.types import Sample


@pytest.mark.parametrize(
    ("text", "ids", "size", "unit", "score"),
    [
        ("a b c d", [], 2, "word", 0.0),
        ("a b a b a b", [], 2, "word", 2 / 5 - 1),  # ab ba ab ba ab
        ("The the THE", [], 1, "word", 1 / 3 - 1),
        ("a b", [], 3, "word", 0.0),
        ("", [], 1, "word", 0.0),
        ("ignored", [7, 7, 7, 7], 3, "token", -0.5),
    ],
)
def test_by_hand(text: str, ids: list[int], size: int, unit: Any, score: float) -> None:
    sample = Sample(prompt="p", completion=text, completion_ids=ids, finish_reason="stop", columns={})
    assert Repetition(ngram_size=size, unit=unit).score([sample]) == pytest.approx([score])
