"""Lines a job, in room and without."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.cells import cell_len

from pggrpo_cli.sweep.display import PlainScreen, Row, SweepDisplay, counted, lines_of
from pggrpo_cli.sweep.processes import Ended


def rows(count: int, folder: Path = Path("swept")) -> list[Row]:
    states = ("finished", "running", "failed", "waiting")
    return [
        Row(
            number=number,
            words=f"loss=pg_grpo seed={number}",
            path=folder / str(number),
            max_steps=24,
            metric=None,
            state=states[number % 4],
            values={"reward": 0.25, "eval/reward": 0.5} if number % 4 == 0 else {},
            step=24 if number % 4 == 0 else 3,
            seconds=75.0,
        )
        for number in range(count)
    ]


def test_a_line_a_job() -> None:
    found = [line for line, _ in lines_of(rows(4), 80, 20)]
    assert found == [
        "0 finished 24/24   0.500    1:15  loss=pg_grpo seed=0",
        "1 running   3/24       –    1:15  loss=pg_grpo seed=1",
        "2 failed    3/24       –    1:15  loss=pg_grpo seed=2",
        "3 waiting   3/24       –    1:15  loss=pg_grpo seed=3",
        "1 running, 1 failed, 1 waiting, 1 finished; values: reward",
    ]


def test_forty_columns_and_many_jobs() -> None:
    found = lines_of(rows(40), 40, 12)
    assert len(found) == 12
    assert all(cell_len(line) <= 40 for line, _ in found)
    assert found[0][0] == " 1 runn 3/24     – loss=pg_grpo seed=1"
    assert [state for _, state in found[:-1]].count("running") == 10  # all that run, then what failed
    assert found[-1][0].startswith("10 running, 10 failed, 10 waiting, 10 f")


def test_plain_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    now = [0.0]
    (row,) = rows(1, tmp_path)
    row.state, row.values, row.step, row.path = "waiting", {}, 0, tmp_path / "0"
    row.path.mkdir()
    display = SweepDisplay([row], PlainScreen(lambda: now[0]))
    display.began(0)
    (row.path / "metrics.jsonl").write_text(json.dumps({"step": 7, "reward": 0.125}) + "\n")
    display.look()
    now[0] = 61.0
    display.look()
    display.ended(Ended(number=0, code=2, words="your own\x1b[2J code"), asked=False)
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "job 0 begins: loss=pg_grpo seed=0 (0/log.txt)"
    assert out[1] == "1 running: job 0 at step 7/24"
    assert out[2].startswith("job 0 failed after ")
    assert out[2].endswith("exit code 2: your own�[2J code") or "\x1b" not in out[2]
    assert row.state == "failed"


def test_counts_are_in_words() -> None:
    assert counted(rows(5)) == "1 running, 1 failed, 1 waiting, 2 finished"
