"""Whose a name is, by the text of the tests alone."""

from __future__ import annotations

import pytest

from pggrpo_cli.code_testing.formats import read_tests
from pggrpo_cli.code_testing.names import Names, names_of, root


def names(*sources: str, setup: str = "x = 1", entry_point: str | None = None) -> Names:
    return names_of(read_tests(list(sources), "w", setup, entry_point), setup)


@pytest.mark.parametrize(
    ("sources", "entry_point", "under_test"),
    [
        (["assert abs(f(1) - 2) < 1"], None, set()),
        (["assert all(map(f, [1]))"], None, set()),
        (["assert abs(-3) == 3"], None, {"abs"}),
        (["import math\nassert math.isclose(abs(-3), 3)"], None, {"abs"}),
        (["assert abs(-3) == 3", "assert f(1) == 2"], None, set()),
        (["assert abs(sum([1]) - 1) < 1"], None, set()),
        (["assert abs(sum([1]) - 1) < 1"], "sum", {"sum"}),
        (["assert abs(f(1) - 2) < 1"], "f", {"f"}),
        (["def check(candidate):\n    assert abs(candidate(1)) == 1"], "abs", set()),
    ],
)
def test_built_in_names(sources: list[str], entry_point: str | None, under_test: set[str]) -> None:
    assert names(*sources, entry_point=entry_point).under_test == under_test


def test_a_single_value_s_function_counts_too() -> None:
    """Without a setup `assert f(1) == 2` is a Call, which has no source."""
    assert names("assert f(1) == 2", "assert abs(-3.5) == 3 + .5", setup="").under_test == set()
    assert names("assert abs(-3) == 3", "assert abs(-3.5) == 3 + .5", setup="").under_test == {"abs"}


def test_modules_are_what_the_tests_use_as_such() -> None:
    assert names("assert math.isclose(f(2), 5)").modules == {"math"}
    assert names("assert bisect([1], 2) == 1", "assert nt == 3").modules == set()
    assert names("import math\nassert math.isclose(f(2), 5)").modules == set()  # they bring it themselves
    assert names("assert math.f(2) == 5", entry_point="math").modules == set()


def test_classes() -> None:
    assert names("s = Stack()\ns.pop()").classes == {"Stack"}
    assert names("s = stack()\ns.push(1)").classes == {"stack"}
    assert names("assert stack().push(1) is None").classes == {"stack"}
    assert names("assert f(1).startswith('hello')", "t = f(1)\nassert t.pop() == 3").classes == set()
    apart = ["t = tree()\nassert t.inorder() == []", "t = f(1)\nassert t.startswith('hello')"]
    assert names(*apart).classes == names(*reversed(apart)).classes == {"tree"}
    assert names("try:\n    f(1)\nexcept ValueError:\n    pass").classes == set()
    assert names("assert Solution().f(1) == 'a'").classes == set()
    assert names("Box = f(1)\nassert Box", setup="class Case: pass").classes == set()


def test_the_root_of_an_entry_point() -> None:
    assert [root(one) for one in ("f", " f ", "Solution().f", "a.b")] == ["f", "f", "Solution", "a"]
