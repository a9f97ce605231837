"""Loggers told as one."""

import math

import pytest

from pggrpo_cli.loggers import Loggers


class Notes:
    def __init__(self, error: Exception | None = None) -> None:
        self.heard: list[object] = []
        self.error = error

    def log(self, step: int, metrics: dict[str, float | None]) -> None:
        self.heard.append((step, metrics))
        if self.error is not None:
            raise self.error


def test_what_is_not_finite_is_null() -> None:
    notes = Notes()
    Loggers({"notes": notes}).log(1, {"a": math.nan, "b": math.inf, "c": 2.0})
    assert notes.heard == [(1, {"a": None, "b": None, "c": 2.0})]


@pytest.mark.fault("T37")
def test_one_that_raises_is_left_out_with_one_word(capsys: pytest.CaptureFixture[str]) -> None:
    broken, whole = Notes(ConnectionError("no network")), Notes()
    loggers = Loggers({"broken": broken, "whole": whole})
    for step in (1, 2):
        loggers.log(step, {})
        loggers.message("only for those that have it")
    assert [step for step, _ in broken.heard] == [1]
    assert [step for step, _ in whole.heard] == [1, 2]
    err = capsys.readouterr().err
    assert err.count("logger.broken") == 1
    assert "no network" in err
