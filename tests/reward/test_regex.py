"""Patterns with the row's own values."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from pggrpo_cli.errors import ConfigError, DataError
from pggrpo_cli.reward.regex import Regex
from pggrpo_cli.types import Sample
from tests.command_line import ROOT


def score(text: str, pattern: str, mode: Any = "search", ignore_case: bool = False, **columns: Any) -> float | None:
    sample = Sample(prompt="p", completion=text, completion_ids=[0], finish_reason="stop", columns=columns)
    (found,) = Regex(pattern=pattern, mode=mode, ignore_case=ignore_case).score([sample])
    return found


def test_columns_are_taken_literally() -> None:
    assert score("It is 3.5 (exactly)", "is {answer}", answer="3.5 (exactly)") == 1.0
    assert score("It is 3x5", "is {answer}", answer="3.5") == 0.0
    assert score("a\nb", "{x}.{y}", "fullmatch", x="a", y="b") == 1.0
    assert score("aab", "a{2}{y}", "fullmatch", y="b") == 1.0
    assert score("PARIS", "{answer}", answer="Paris") == 0.0
    assert score("PARIS", "{answer}", ignore_case=True, answer="Paris") == 1.0


def test_the_pattern_of_the_file() -> None:
    pattern = yaml.safe_load((ROOT / "conf" / "reward" / "regex.yaml").read_text())["regex"]["pattern"]
    assert score("so 12", pattern, answer=12) == 1.0
    assert score("12", pattern, answer=12) == 1.0
    assert score("so 120", pattern, answer=12) == 0.0


def test_what_is_wrong_is_named() -> None:
    with pytest.raises(DataError, match=r"\{anser\} is no column of the rows; they have 'answer'"):
        score("x", "{anser}", answer="x")
    with pytest.raises(ConfigError, match=r"`reward.regex.pattern`: not a regular expression"):
        score("x", "(")
