"""Tasks of reasoning-gym as rows."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from pggrpo_cli.data.reasoning_gym import BY_HASH_SEED, ReasoningGym
from pggrpo_cli.errors import ConfigError

DATA = ReasoningGym(
    task="chain_sum",
    params={"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1},
    size=400,
    eval_size=30,
    data_seed=0,
    as_chat=True,
)


def test_held_out_questions_are_never_trained_on() -> None:
    data = DATA.load(1)
    train = {row.columns["question"] for row in data.train}
    held_out = {row.columns["question"] for row in data.evaluation}
    assert len(held_out) == len(data.evaluation) == 30
    assert not train & held_out
    assert len(train) == len(data.train) > 50
    assert data.train[0].prompt == [{"role": "user", "content": data.train[0].columns["question"]}]
    assert data.train[0].columns["task"] == "chain_sum"


@pytest.mark.parametrize("task", BY_HASH_SEED)
def test_tasks_that_python_itself_shuffles_are_refused(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = replace(DATA, task=task, params={}, size=4, eval_size=1)
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    with pytest.raises(ConfigError, match=rf"`data.task`: the questions of {task} .* PYTHONHASHSEED=0"):
        data.load(1)
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    assert data.load(1).train


def test_a_task_that_forgets_its_seed_is_given_one() -> None:
    data = replace(DATA, task="list_functions", params={}, size=6, eval_size=1)
    state = random.getstate()
    first = data.load(1)
    random.random()
    assert data.load(1) == first
    random.setstate(state)
    data.load(1)
    assert random.getstate() == state


def test_the_seed_divides_the_questions() -> None:
    assert DATA.load(1) == DATA.load(1)
    assert DATA.load(1).evaluation != DATA.load(2).evaluation
    plain = replace(DATA, as_chat=False).load(1)
    assert isinstance(plain.train[0].prompt, str)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "chain_sun"}, r"no task 'chain_sun'. Did you mean chain_sum"),
        ({"params": {"min_term": 2}}, r"`data.params`: task chain_sum refuses them"),
        ({"params": {"min_terms": 5, "max_terms": 2}}, r"`data.params`"),
        ({"eval_size": 400}, r"`data.eval_size`: 400 of \d+ different questions"),
    ],
)
def test_errors(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(DATA, **changes).load(1)
