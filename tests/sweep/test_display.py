"""Lines a job, in room and without."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.cells import cell_len

from pggrpo_cli.sweep.display import PlainScreen, Row, SweepDisplay, as_rows, counted, lines_of
from pggrpo_cli.sweep.jobs import Job
from pggrpo_cli.sweep.processes import Ended
from pggrpo_cli.sweep.states import state_of_job


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
            times={("step_time", 1): 70.0, ("time/evaluation", 1): 5.0},
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
    row.state, row.values, row.step, row.times, row.path = "waiting", {}, 0, {}, tmp_path / "0"
    row.path.mkdir()
    display = SweepDisplay([row], PlainScreen(lambda: now[0]))
    display.began(0)
    (row.path / "metrics.jsonl").write_text(json.dumps({"step": 7, "reward": 0.125, "step_time": 61.0}) + "\n")
    display.look()
    now[0] = 61.0
    display.look()
    display.ended(Ended(number=0, code=2, words="your own\x1b[2J code"), asked=False)
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "job 0 begins: loss=pg_grpo seed=0 (0/log.txt)"
    assert out[1] == "1 running: job 0 at step 7/24"
    assert out[2].startswith("job 0 failed after step 7 (1:01), exit code 2: ")
    assert out[2].endswith("exit code 2: your own�[2J code") or "\x1b" not in out[2]
    assert row.state == "failed"


def test_counts_are_in_words() -> None:
    assert counted(rows(5)) == "1 running, 1 failed, 1 waiting, 2 finished"


def test_one_time_for_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the live display counts, over two sessions, is what `sweep status` says: steps and evaluations, each once."""
    monkeypatch.chdir(tmp_path)
    job = Job(number=0, folder="0", overrides=("seed=1",), config={})
    file = tmp_path / "metrics.jsonl"
    lines = [{"step": 0, "time/evaluation": 3.0}, *({"step": step, "step_time": 10.0 + step} for step in (1, 2, 3))]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (row,) = as_rows([state_of_job(job, tmp_path)], {0: "seed=1"})
    assert row.seconds == state_of_job(job, tmp_path).seconds == 3 + 11 + 12 + 13
    display = SweepDisplay([row], PlainScreen())
    display.began(0)
    display.look()
    assert row.seconds == 39
    lines = [*lines[:3], {"step": 3, "step_time": 1.5, "time/evaluation": 2.0}, {"step": 4, "step_time": 20.0}]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines[:3]))  # it goes on from step 2
    display.look()
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    display.ended(Ended(number=0, code=0, words=""), asked=False)
    assert row.seconds == state_of_job(job, tmp_path).seconds == 3 + 11 + 12 + 1.5 + 2 + 20


def test_before_the_first_step_there_is_no_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 0, "time/evaluation": 3.0}) + "\n")
    state = state_of_job(Job(number=0, folder="0", overrides=(), config={}), tmp_path)
    (row,) = as_rows([state], {0: ""})
    assert (row.seconds, state.seconds) == (0.0, None)
    display = SweepDisplay([row], PlainScreen())
    display.began(0)
    display.ended(Ended(number=0, code=2, words="no"), asked=False)
    assert "job 0 failed before its first step, exit code 2: no" in capsys.readouterr().out
