"""Tasks of one small function each."""

from __future__ import annotations

import pytest

from pggrpo_cli.code_testing.formats import Call, read_tests
from pggrpo_cli.data.small_programs import SmallPrograms, tasks
from pggrpo_cli.errors import ConfigError

DATA = SmallPrograms(tests_per_task=4, eval_size=32, data_seed=0, as_chat=True)


def test_tasks_differ_and_are_divided() -> None:
    data = DATA.load(1)
    train, held_out = ({row.prompt[0]["content"] for row in rows} for rows in (data.train, data.evaluation))  # type: ignore[index]
    assert len(held_out) == 32
    assert len(train) == len(data.train) > 100
    assert not train & held_out
    assert data == DATA.load(1)
    assert data != DATA.load(2)


def test_every_test_is_one_that_the_right_function_passes() -> None:
    rows = {row.columns["signature"]: row for row in (*DATA.load(1).train, *DATA.load(1).evaluation)}
    for task in tasks():
        found = read_tests(rows[task.signature].columns["tests"], "here")
        assert len(found) == 4, task
        for test in found:
            assert isinstance(test, Call)  # needs no second process
            assert test.function == task.signature.partition("(")[0]
            assert [task.right(*test.arguments)] == test.expected


def test_no_constant_passes_all_tests() -> None:
    """Or there is nothing to learn."""
    for row in DATA.load(1).train:
        results = {str(test.expected) for test in read_tests(row.columns["tests"], "here") if isinstance(test, Call)}
        if "True if" not in row.columns["task"] and "how often" not in row.columns["task"]:
            assert len(results) > 1, row


def test_other_settings() -> None:
    data = SmallPrograms(tests_per_task=1, eval_size=0, data_seed=1, as_chat=False).load(1)
    assert data.evaluation == []
    assert data.train[0].prompt == "Write a Python function `add_2(x)` that returns x plus 2."
    assert data.train[0].columns["tests"] != DATA.load(1).train[0].columns["tests"]
    with pytest.raises(ConfigError, match=r"`data.eval_size`: 1000 of \d+ tasks"):
        SmallPrograms(tests_per_task=1, eval_size=1000, data_seed=1, as_chat=False).load(1)
