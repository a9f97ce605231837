"""Whether what a program gave is what was expected. Looks at plain values only: nothing of the program's decides."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any

from pggrpo_cli.code_testing.formats import Call


def same_value(value: Any, test: Call) -> bool:
    """Python's ==. `value` comes from speech.decode, so that it is made of Python's own types."""
    if test.from_json:
        value = _without_tuples(value)
    return any(bool(value == expected) for expected in test.expected)


def same_text(printed: str, expected: str) -> bool:
    """Line by line, but for space at the ends and empty lines at the end; a line of numbers by their values: 1.0 is 1."""
    left, right = ([line.strip() for line in text.strip().splitlines()] for text in (printed, expected))
    return len(left) == len(right) and all(map(_same_line, left, right))


def _same_line(left: str, right: str) -> bool:
    if left == right:
        return True
    numbers = _numbers(right)  # the expected one first: it is the shorter, if they differ
    return numbers is not None and len(left.split()) == len(numbers) and _numbers(left) == numbers


def _numbers(line: str) -> list[Decimal] | None:
    try:
        numbers = [Decimal(word) for word in line.split()]
    except InvalidOperation:
        return None
    return numbers if all(number.is_finite() for number in numbers) else None


def _without_tuples(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_without_tuples(one) for one in value]
    if isinstance(value, dict):
        return {key: _without_tuples(one) for key, one in value.items()}
    return value
