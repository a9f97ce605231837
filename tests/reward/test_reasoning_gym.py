"""The task's own scorer."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from pggrpo_cli.data.reasoning_gym import ReasoningGym as Data
from pggrpo_cli.errors import DataError
from pggrpo_cli.reward.reasoning_gym import LITERAL_ANSWERS, SYMBOLIC_ANSWERS, UNSAFE, ReasoningGym
from pggrpo_cli.types import Row, Sample

DATA = Data(task="leg_counting", params={}, size=6, eval_size=1, data_seed=0, as_chat=True)


def test_the_right_answer_scores_one_and_others_less() -> None:
    rows = DATA.load(1).train

    def score(pattern: str | None, text: str) -> float | None:
        row = rows[0]
        text = text.format(row.columns["answer"])
        sample = Sample(
            prompt=row.prompt, completion=text, completion_ids=[0], finish_reason="stop", columns=row.columns
        )
        return ReasoningGym(pattern=pattern).score([sample])[0]

    assert score(None, " {} ") == 1.0
    assert score(None, "no idea") < 1.0
    assert score(r"<a>(.*?)</a>", "so <a>{}</a>.") == 1.0
    assert score(r"<a>(.*?)</a>", "{}") < 1.0


def test_rows_of_another_source_are_refused() -> None:
    sample = Sample(prompt="p", completion="1", completion_ids=[0], finish_reason="stop", columns={})
    with pytest.raises(DataError, match="name no task"):
        ReasoningGym(pattern=None).score([sample])


def rows_of(task: str, **params: Any) -> list[Row]:
    return list(Data(task=task, params=params, size=8, eval_size=0, data_seed=0, as_chat=False).load(1).train)


def score(row: Row, text: str) -> float | None:
    sample = Sample(prompt=row.prompt, completion=text, completion_ids=[0], finish_reason="stop", columns=row.columns)
    return ReasoningGym(pattern=None).score([sample])[0]


def test_the_scorer_has_the_parameters_of_the_data() -> None:
    # The task allows an error of one in the last decimal place: how many there are is a parameter.
    row = rows_of("decimal_arithmetic", min_num_decimal_places=1, max_num_decimal_places=1)[0]
    assert score(row, str(Decimal(row.columns["answer"]) + Decimal("0.1"))) == 1.0
    row = rows_of("decimal_arithmetic")[0]
    assert score(row, str(Decimal(row.columns["answer"]) + Decimal("0.1"))) == 0.0


def test_an_answer_on_which_the_scorer_fails_is_wrong() -> None:
    row = rows_of("prime_factorization")[0]
    assert score(row, "no idea") == 0.0
    assert score(row, row.columns["answer"]) == 1.0
    row.columns["answer"] = "broken"
    with pytest.raises(ValueError, match="invalid literal"):
        score(row, "no idea")


@pytest.mark.parametrize("task", [*LITERAL_ANSWERS, *SYMBOLIC_ANSWERS])
def test_answers_are_never_run(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", "0")  # some tasks cannot be repeated without it, and say so
    canary = tmp_path / "canary"
    for row in rows_of(task):
        right = row.columns["answer"]
        if right is not None:
            assert task in LITERAL_ANSWERS or not UNSAFE.search(right)
            assert score(row, right) == pytest.approx(1.0)
        for attack in (f"open('{canary}', 'w')", f"__import__('pathlib').Path({str(canary)!r}).touch()"):
            for text in (attack, f"[{attack}]", f"x + {attack}"):
                assert score(row, text) < 1.0
    assert not canary.exists()


@pytest.mark.parametrize(
    "text", ["exec(chr(112))", "x.diff(x)", "open (1)", "(lambda: 1)()", "exit()", "ab(x)(y)", "1;2"]
)
def test_what_no_formula_needs(text: str) -> None:
    assert UNSAFE.search(text)


@pytest.mark.parametrize(
    "text", ["x*(x + 1)", "sqrt(2)*exp(-x**2)", "3.5*x", "(8 - 2)*(1 + 3)", "atan(x)/log(2)", "P ∧ (Q ∨ ¬R)"]
)
def test_formulas_are_formulas(text: str) -> None:
    assert not UNSAFE.search(text)
