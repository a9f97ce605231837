"""Programs scored by tests that they cannot see."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from pggrpo_cli.errors import ConfigError, DataError
from pggrpo_cli.reward.code_tests import CodeTests, program_of
from pggrpo_cli.types import RewardContext
from tests.programs import SETTINGS, Judge, judge, sample_of

CONTEXT = RewardContext(run_dir=None, device="cpu", seed=1)
ADD = "def add(a, b):\n    return a + b\n"
SCRIPT = "a, b = map(int, input().split())\nprint(a + b)\n"


def reward(**settings: Any) -> CodeTests:
    return CodeTests(**{key: value for key, value in (SETTINGS | settings).items() if key != "_target_"})


def score(program: str, tests: Any, settings: dict[str, Any] | None = None, **columns: Any) -> Any:
    with reward(**settings or {}).open(CONTEXT) as working:
        (found,) = working.score([sample_of(program, tests, **columns)])
    return found


@pytest.fixture(scope="module")
def here() -> Iterator[Judge]:
    with judge() as found:
        yield found


def test_asserts() -> None:
    tests = ["assert add(1, 2) == 3", "assert add('a', b='b') == 'ab'", "assert add([1], [2]) == [1, 2]"]
    assert score(ADD, tests) == 1.0
    assert score(ADD, json.dumps(tests)) == 1.0
    assert score("def add(a, b):\n    return 3\n", tests) == pytest.approx(1 / 3)
    assert score("def add(a, b):\n    return 3\n", tests, {"partial": False}) == 0.0
    assert score(ADD, tests, {"partial": False}) == 1.0
    assert score("add = 3", tests) == 0.0
    assert score("def add(a, b: retur", tests) == 0.0


def test_asserts_that_need_a_process_of_their_own() -> None:
    tests = [
        "assert abs(add(0.1, 0.2) - 0.3) < 1e-9",
        "import math\nfor n in range(20):\n    assert math.isclose(add(n, -n), 0.0)",
        "assert add(1, 2) == add(2, 1)",
        "assert HELPER(add(2, 2)) == 5",
    ]
    setup = "def HELPER(n):\n    return n + 1\n"
    assert score(ADD, tests, setup=setup) == 1.0
    assert score("def add(a, b):\n    return a\n", tests, setup=setup) == 0.0
    human_eval = "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(0, 0) == 0\n"
    assert score(ADD, human_eval, entry_point="add") == 1.0
    assert score("def add(a, b):\n    return 3\n", human_eval, entry_point="add") == 0.0


def test_objects_functions_and_changes_cross_over() -> None:
    program = """
class Stack:
    def __init__(self): self.items = []
    def push(self, one): self.items.append(one)
    def pop(self): return self.items.pop()
    def __len__(self): return len(self.items)
def apply(function, values): return [function(one) for one in values]
def fill(values): values[:] = sorted(values); values.append(9)
def odd():
    for n in (1, 3): yield n
def fails(): raise ValueError("no")
def ordered(values, key=None): return sorted(values, key=key) if key else values
"""
    tests = [
        "s = Stack()\ns.push(3)\ns.push((1, {'a': 2}))\nassert len(s) == 2\nassert s.pop() == (1, {'a': 2})",
        "assert apply(lambda n: n * 2, [1, 2]) == [2, 4]",
        "values = [3, 1]\nfill(values)\nassert values == [1, 3, 9]",
        "assert list(odd()) == [1, 3]",
        "assert ordered([1, 2], key=lambda n: -n) == [2, 1]",
        "try:\n    fails()\nexcept ValueError as error:\n    assert str(error) == 'no'\nelse:\n    assert False",
        "s = Stack()\ns.items = [5]\nassert s.items == [5]",
    ]
    assert score(program, tests) == 1.0


VALUES = [
    "(1, 2)",
    "{1, 2}",
    "{'a': [1.5, None]}",
    "1 + 2j",
    "b'x'",
    "True",
    "10 ** 5000",
    "frozenset({1})",
    "float('inf')",
]


@pytest.mark.parametrize("value", VALUES)
def test_values_keep_their_types(here: Judge, value: str) -> None:
    assert here.score(f"def f():\n    return {value}\n", [f"assert f() == {value}"]) == 1.0
    assert here.score(f"def f():\n    return str({value!r})\n", [f"assert f() == {value}"]) == 0.0


def test_stdin_and_stdout() -> None:
    pairs = {"inputs": ["1 2\n", "3 4\n", "5 5\n"], "outputs": ["3\n", "7", "11"]}
    assert score(SCRIPT, pairs) == pytest.approx(2 / 3)
    assert score(SCRIPT, json.dumps(pairs)) == pytest.approx(2 / 3)
    listed = [{"input": "1 2", "output": "3", "testtype": "stdin"}]
    assert score(SCRIPT, listed) == 1.0
    assert score("import os\na, b = open(0).read().split()\nos.write(1, b'%d' % (int(a) + int(b)))", listed) == 1.0
    assert score("def main():\n    print(3)\nif __name__ == '__main__':\n    main()\n", listed) == 1.0
    assert score("print(3.0); exit()", listed) == 1.0
    assert score("print(3); exit(1)", listed) == 0.0
    assert score("print(3); raise ValueError", listed) == 0.0


def test_a_program_that_ends_one_test_starts_anew_for_the_next() -> None:
    pairs = {"inputs": ["1", "2", "3"], "outputs": ["1", "2", "3"]}
    assert score("import os\nn = input()\nif n == '2': os._exit(0)\nprint(n)", pairs) == pytest.approx(2 / 3)
    calls = ["assert f(1) == 1", "assert f(2) == 2", "assert int(f(3)) == 3"]
    program = "import ctypes\ndef f(n):\n    return ctypes.string_at(0) if n == 2 else n\n"
    assert score(program, calls) == pytest.approx(2 / 3)
    assert score(
        program, [f"{one} # alone" if "2" in one else one.replace("f(", "0 + f(") for one in calls]
    ) == pytest.approx(2 / 3)


def test_calls() -> None:
    assert score(ADD, {"fn_name": "add", "inputs": [[1, 2], [0, 1]], "outputs": [3, 1]}) == 1.0
    assert score(ADD, {"fn_name": "add", "inputs": [[1, 2]], "outputs": [[3]]}) == 1.0  # APPS
    assert score(ADD, {"fn_name": "add", "inputs": ["[1]\n[2]"], "outputs": ["[1, 2]"]}) == 1.0  # LiveCodeBench
    solution = "class Solution:\n    def pair(self, a):\n        return (a, a)\n"
    assert score(solution, {"fn_name": "pair", "inputs": [[1]], "outputs": [[1, 1]]}) == 1.0
    assert score(solution, {"fn_name": "pair", "inputs": [[1]], "outputs": [[1, 2]]}) == 0.0


@pytest.mark.parametrize("none", [None, "", "  ", [], {}, "[]"])
def test_a_row_without_tests_does_not_count(none: Any) -> None:
    assert score(ADD, none) is None


@pytest.mark.parametrize(
    ("completion", "program"),
    [
        ("x = 1", "x = 1"),
        ("So:\n```python\nx = 1\n```\nDone.", "x = 1\n"),
        ("```\nx = 1\n```\nand better:\n```py\nx = 2\n```\nrun it:\n```bash\npython x.py\n```", "x = 2\n"),
        ("```python\nx = 1```", "x = 1"),
        ("```python\nx = 1\n", "x = 1\n"),
        ("", ""),
    ],
)
def test_the_program_is_the_last_block(completion: str, program: str) -> None:
    assert program_of(completion, fenced_only=False) == program


def test_without_a_block() -> None:
    assert program_of("x = 1", fenced_only=True) is None
    assert score(ADD, ["assert add(1, 2) == 3"], {"fenced_only": True}) == 0.0
    assert score("", ["assert add(1, 2) == 3"]) == 0.0


@pytest.mark.parametrize(
    ("tests", "words"),
    [
        (["assert add(1"], "is no Python"),
        ("[1, 2", "begins like JSON and is none"),
        ({"inputs": ["1"], "outputs": []}, "as many inputs as outputs"),
        ([{"input": "1"}], "no pair of stdin and stdout"),
        (3, "a int is no set of tests"),
    ],
)
def test_tests_that_are_none(tests: Any, words: str) -> None:
    with pytest.raises(DataError, match=r"`reward.code_tests.tests_column`: column 'tests'") as caught:
        score(ADD, tests)
    assert words in str(caught.value)


def test_columns_that_do_not_fit() -> None:
    with pytest.raises(DataError, match="no column 'unit_tests'; it has 'tests'"):
        score(ADD, [], {"tests_column": "unit_tests"})
    with pytest.raises(ConfigError, match=r"`reward.code_tests.setup_column`: column 'setup' holds a list"):
        score(ADD, ["assert add(1, 2) == 3"], setup=["import math"])


def test_what_a_program_draws_is_the_same_again(here: Judge) -> None:
    program = "import random\ndef f():\n    return [random.random(), list({'a', 'b', 'c', 'd'})]\n"
    first = None
    for _ in range(2):
        with reward().open(CONTEXT) as working:
            process = working._sandbox.start(working._limits)
            try:
                import time

                process.ask(json.dumps({"define": program}).encode(), time.monotonic() + 30)
                message = {"op": "call", "on": "f", "args": [], "named": {}}
                drawn = process.ask(json.dumps(message).encode(), time.monotonic() + 30)
            finally:
                process.kill()
        assert first in (None, drawn)
        first = drawn
    assert first is not None
    assert b"value" in first
