"""Tasks of reasoning-gym as rows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pggrpo_cli.data.reasoning_gym import ReasoningGym
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
