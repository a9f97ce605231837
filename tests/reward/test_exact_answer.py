"""The last number, compared by value."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from pggrpo_cli.config import conf_dir
from pggrpo_cli.errors import ConfigError, DataError
from pggrpo_cli.reward.exact_answer import ExactAnswer
from pggrpo_cli.types import Sample

PATTERN = yaml.safe_load((conf_dir() / "reward" / "exact_answer.yaml").read_text())["exact_answer"]["pattern"]
REWARD = ExactAnswer(pattern=PATTERN, answer_column="answer")


def sample(completion: str, tokens: int = 1, **columns: Any) -> Sample:
    return Sample(prompt="p", completion=completion, completion_ids=[0] * tokens, finish_reason="stop", columns=columns)


@pytest.mark.parametrize(
    ("completion", "answer", "expected"),
    [
        ("7", "7", 1),
        ("3 + 4 = 7.", "7", 1),
        ("7 is not 8", "7", 0),
        ("", "7", 0),
        ("seven", "7", 0),
        ("-5", "-5", 1),
        ("5", "-5", 0),
        ("7.0", "7", 1),
        ("1,000", 1000, 1),
        ("The answer is 12!", 12, 1),
        ("4 - 9 = −5", "-5", 1),
    ],
)
def test_the_last_number_counts(completion: str, answer: Any, expected: int) -> None:
    assert REWARD.score([sample(completion, answer=answer)]) == [expected]


def test_a_pattern_of_your_own_with_a_group() -> None:
    reward = ExactAnswer(pattern=r"<answer>(.*?)</answer>", answer_column="label")
    texts = ["<answer> yes </answer>", "yes", "<answer>no</answer>"]
    assert reward.score([sample(text, label="yes") for text in texts]) == [1, 0, 0]


def test_errors_say_what_to_do() -> None:
    with pytest.raises(DataError, match=r"no column 'answer'; it has 'gold'"):
        REWARD.score([sample("7", gold="7")])
    with pytest.raises(ConfigError, match="not a regular expression"):
        ExactAnswer(pattern="(", answer_column="answer").score([sample("7", answer="7")])


@pytest.mark.parametrize(
    ("completion", "answer", "score"),
    [
        *(("3,4", "4", 1.0), ("1,234.50", "1234.5", 1.0), ("9-4", "4", 1.0), ("9 - -4", "-4", 1.0)),
        *(("it is .5", "0.5", 1.0), ("1,2345", "2345", 1.0), ("5.", "5", 1.0), ("−3", "-3", 1.0), ("12", "2", 0.0)),
    ],
)
def test_what_the_default_pattern_takes_for_a_number(completion: str, answer: str, score: float) -> None:
    assert REWARD.score([sample(completion, answer=answer)]) == [score]
