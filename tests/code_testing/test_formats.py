"""Tests as data sets write them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pggrpo_cli.code_testing.formats import Call, Script, Statements, read_tests
from pggrpo_cli.errors import DataError


def test_an_assert_of_values_is_a_call() -> None:
    (call,) = read_tests(["assert f(-1, 'a', b=[{1}]) == (2, None)"], "w")
    assert call == Call(function="f", arguments=[-1, "a"], named={"b": [{1}]}, expected=[(2, None)])


@pytest.mark.parametrize(
    "source",
    [
        "assert abs(f(1) - 2) < 1",
        "assert f(x) == 2",
        "assert f(1) == g(2)",
        "assert f(*[1]) == 2",
        "assert f(**{'a': 1}) == 2",
        "assert m.f(1) == 2",
        "assert f(1) != 2",
        "assert 1 < f(1) == 2",
        "x = 1\nassert f(1) == 2",
        "assert f(1)",
    ],
)
def test_everything_else_is_run_as_it_stands(source: str) -> None:
    assert read_tests([source], "w") == [Statements(source=source)]


def test_with_setup_nothing_is_taken_apart() -> None:
    assert read_tests(["assert f(1) == 2"], "w", setup="x = 1") == [Statements(source="assert f(1) == 2")]


def test_human_eval() -> None:
    text = "def check(candidate):\n    assert candidate(1) == 2\n"
    for entry_point in ("g", "Solution().g"):
        called = Statements(source=text, entry_point=entry_point, calls_check=True)
        assert read_tests(text, "w", entry_point=entry_point) == [called]
    assert read_tests(text, "w") == [Statements(source=text)]
    no_check = "x = 1\nassert g(x) == 2"
    assert read_tests(no_check, "w", entry_point=" g ") == [Statements(source=no_check, entry_point="g")]
    assert read_tests([no_check], "w", entry_point="g h") == [Statements(source=no_check, entry_point="g h")]
    with pytest.raises(DataError, match="'g h' is no Python"):
        read_tests(text, "w", entry_point="g h")


@pytest.mark.parametrize("setup", ["def broken(:", "def f(a, a): pass"])
def test_a_setup_that_is_no_python(setup: str) -> None:
    with pytest.raises(DataError, match="is no Python"):
        read_tests(["assert f(1) == 2"], "w", setup=setup)


PAIR = [Script(stdin="1\n2", stdout="3")]


@pytest.mark.parametrize(
    "value",
    [
        {"inputs": ["1\n2"], "outputs": ["3"]},
        {"inputs": [["1", "2"]], "outputs": [["3"]]},
        {"input": ["1\n2"], "output": ["3"]},
        {"inputs": ["1\n2"], "outputs": ["3"], "fn_name": None},
        [{"input": "1\n2", "output": "3"}],
    ],
)
def test_stdin_and_stdout(value: Any) -> None:
    assert read_tests(value, "w") == PAIR
    assert read_tests(json.dumps(value), "w") == PAIR


def test_calls() -> None:
    def expected(outputs: list[Any]) -> list[Any]:
        found = read_tests({"fn_name": "f", "inputs": [[1]] * len(outputs), "outputs": outputs}, "w")
        return [test.expected for test in found if isinstance(test, Call)]

    assert expected([3, [1, 2]]) == [[3], [[1, 2]]]
    assert expected([[3], [4]]) == [[[3], 3], [[4], 4]]
    assert expected(["12", "x"]) == [["12", 12], ["x"]]


@pytest.mark.parametrize(
    "value",
    [
        3.5,
        ["assert f("],
        ["assert f(1) == 2", {"input": "1", "output": "2"}],
        "{not json",
        {"inputs": ["1"]},
        {"inputs": ["1"], "outputs": ["1", "2"]},
        {"inputs": "1", "outputs": "2"},
        {"inputs": ["not json"], "outputs": [1], "fn_name": "f"},
        [{"input": "[1]", "output": "2", "testtype": "functional"}],
    ],
)
def test_what_is_no_set_of_tests(value: Any) -> None:
    with pytest.raises(DataError, match=r"^`reward\.x`: "):
        read_tests(value, "`reward.x`")
