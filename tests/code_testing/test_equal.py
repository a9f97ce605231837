"""Whether an answer is the right one."""

from __future__ import annotations

from typing import Any

import pytest

from pggrpo_cli.code_testing.equal import same_text, same_value
from pggrpo_cli.code_testing.formats import Call


@pytest.mark.parametrize(
    ("printed", "expected", "same"),
    [
        ("3\n", "3", True),
        ("3 \n\n", " 3", True),
        ("1 2\n3", "1 2\n3\n", True),
        ("1  2.0", "1.00 2", True),
        ("1\n2", "1 2", False),
        ("3.1", "3", False),
        ("yes", "Yes", False),
        ("", "0", False),
        ("", "", True),
        ("nan", "nan", True),
        ("inf", "Infinity", False),
        ("a  b", "a b", False),
        ("1 2", "1 2 3", False),
        ("0.1000000000000000055", "0.1", False),
    ],
)
def test_texts(printed: str, expected: str, same: bool) -> None:
    assert same_text(printed, expected) == same


@pytest.mark.parametrize(
    ("value", "expected", "from_json", "same"),
    [
        (3, [3], False, True),
        (3.0, [3], False, True),
        ((1, 2), [[1, 2]], False, False),
        ((1, (2, 3)), [[1, [2, 3]]], True, True),
        ({"a": (1,)}, [{"a": [1]}], True, True),
        (4, [3, 4], False, True),
        (None, [0], False, False),
    ],
)
def test_values(value: Any, expected: list[Any], from_json: bool, same: bool) -> None:
    assert same_value(value, Call(function="f", arguments=[], expected=expected, from_json=from_json)) == same
