"""Few words for a job."""

from __future__ import annotations

import pytest

from pggrpo_cli.sweep.words import shortened, telling


def test_of_each_job_what_not_all_have() -> None:
    assert telling([("seed=1", "loss=grpo"), ("seed=2", "loss=grpo")]) == ["seed=1", "seed=2"]
    assert telling([("seed=1", "name=a"), ("seed=1", "name=a")]) == ["seed=1 name=a"] * 2
    assert telling([]) == []


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("loss.beta=0.1294777673373607 optimizer.lr=3.750490895143949e-05", "loss.beta=0.1295 optimizer.lr=3.75e-5"),
        ("x=-123456.78912345", "x=-1.235e5"),
        ("x=0.02 y=1e-05 z=0.12345", "x=0.02 y=1e-05 z=0.12345"),
        ("path=v1.1234567.2 name=a0.1234567 n=0.1234567b", "path=v1.1234567.2 name=a0.1234567 n=0.1234567b"),
    ],
)
def test_long_numbers(text: str, short: str) -> None:
    assert shortened([text]) == [short]


def test_jobs_stay_apart() -> None:
    texts = ["lr=0.12345678 seed=1", "lr=0.12345679 seed=1"]
    assert shortened(texts) == texts
    assert shortened([*texts[:1], *texts[:1]]) == ["lr=0.1235 seed=1"] * 2
