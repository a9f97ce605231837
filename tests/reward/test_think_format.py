"""Thoughts between tags, then an answer."""

from __future__ import annotations

import pytest

from pggrpo_cli.reward.think_format import ThinkFormat
from pggrpo_cli.types import Sample


@pytest.mark.parametrize(
    ("text", "whole", "opened"),
    [
        ("<think>2 + 2</think> 4", 1, 0),
        ("\n<think>\n2\n</think>\n4", 1, 0),
        ("2 + 2</think> 4", 0, 1),
        ("<think>2</think>", 0, 0),
        ("2</think>  ", 0, 0),
        ("so <think>2</think> 4", 0, 0),
        ("<think><think>2</think> 4", 0, 0),
        ("<think>2</think>4</think> 4", 0, 0),
        ("<think>2 4", 0, 0),
        ("4", 0, 0),
        ("", 0, 0),
    ],
)
def test_forms(text: str, whole: int, opened: int) -> None:
    sample = Sample(prompt="p", completion=text, completion_ids=[0], finish_reason="stop", columns={})
    for by_template, score in ((False, whole), (True, opened)):
        reward = ThinkFormat(opening="<think>", closing="</think>", opened_by_template=by_template)
        assert reward.score([sample]) == [score]
