"""`pggrpo sweep`: its words, and what it says of a sweep in any state."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pggrpo_cli import run_directory as runs
from pggrpo_cli.cli import main
from pggrpo_cli.sweep.jobs import Job
from pggrpo_cli.sweep.record import Record
from tests.command_line import make_checkpoint, run_all
from tests.report.run_files import config, make_run


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep of four jobs: done, stopped, failed, not begun."""
    monkeypatch.chdir(tmp_path)
    jobs = [
        Job(number=n, folder=str(n), overrides=("model=tiny", f"seed={n}"), config={**config(), "seed": n})
        for n in range(4)
    ]
    for number in range(3):
        make_run(tmp_path / "swept" / str(number), steps=5, seed=number + 1)
        make_checkpoint(tmp_path / "swept" / str(number), 5)
    for number in (1, 2):
        (tmp_path / "swept" / str(number) / "finished.json").unlink(missing_ok=True)
    (tmp_path / "swept/2/error.json").write_text(json.dumps({"job": 2, "exit_code": 3, "error": "NaN\x1b[2J"}))
    Record(
        path=tmp_path / "swept", words=("model=tiny", "seed=0,1,2,3"), config_name="train", config_dir=None,
        working_folder=str(tmp_path), beforehand=True, jobs={job.number: job for job in jobs},
    ).save()  # fmt: skip
    runs.save_finished(tmp_path / "swept/0", 5)
    return tmp_path


def test_status(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with runs.locked(Path("swept/1")):
        assert main(["sweep", "status", "swept"]) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert [line.split()[:2] for line in lines[:4]] == [
        ["0", "finished"],
        ["1", "running"],
        ["2", "failed"],
        ["3", "waiting"],
    ]
    assert lines[0].endswith("seed=0")
    assert "job 2: NaN" in lines[4]
    assert "\x1b" not in out
    assert lines[5].startswith("1 running, 1 failed, 1 waiting, 1 finished; values: last eval/reward")
    assert lines[6] == "to go on: pggrpo sweep resume swept"


def test_json(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with runs.locked(Path("swept")):
        assert main(["sweep", "status", "--json", "swept"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["running"] is True
    assert [one["state"] for one in found["jobs"]] == ["finished", "stopped", "failed", "waiting"]
    first, last = found["jobs"][0], found["jobs"][3]
    series = [json.loads(line) for line in Path("swept/0/metrics.jsonl").read_text().splitlines()]
    assert first["objective"] == [line["eval/reward"] for line in series if "eval/reward" in line][-1]
    assert first["seconds"] == pytest.approx(
        sum(line.get("step_time", 0) + line.get("time/evaluation", 0) for line in series)
    )
    assert (first["step"], first["overrides"]) == (5, ["model=tiny", "seed=0"])
    assert (last["step"], last["objective"], last["seconds"], last["error"]) == (0, None, None, None)
    assert found["jobs"][2]["exit_code"] == 3


def test_nothing_is_written(place: Path) -> None:
    for job in ("0", "1"):
        with runs.locked(Path("swept") / job):
            pass
    assert Path("swept/1/.lock").exists()
    before = {file: file.stat().st_mtime_ns for file in place.rglob("*")}
    assert main(["sweep", "status", "swept"]) == 0
    assert {file: file.stat().st_mtime_ns for file in place.rglob("*")} == before


def test_words(place: Path) -> None:
    cases = {
        ("sweep",): (2, "usage: pggrpo sweep status DIR", ""),
        ("sweep", "--help"): (0, "usage: pggrpo sweep status DIR", ""),
        ("sweep", "statsu"): (2, "", "Did you mean status? There are: status, resume."),
        ("sweep", "seed=1,2"): (2, "", "A sweep is started by pggrpo train -m."),
        ("sweep", "status"): (2, "", "no folder is given"),
        ("sweep", "status", "swept", "--jsn"): (2, "", "Did you mean --json?"),
        ("sweep", "status", "nowhere"): (2, "", "nowhere is no folder"),
        ("sweep", "status", "swept/0"): (2, "", "It is a job of swept"),
        ("sweep", "resume"): (2, "", "the folder of the sweep comes first"),
        ("sweep", "resume", "seed=1"): (2, "", "the folder of the sweep comes first"),
        ("sweep", "resume", "swept", "--force"): (2, "", "there is no such option"),
        ("sweep", "resume", "swept", "seed=1,2"): (2, "", "Leave out seed=1,2;"),
        ("sweep", "resume", "swept", "trainer.max_step=3"): (2, "", "Did you mean trainer.max_steps?"),
    }
    found = run_all([list(words) for words in cases], place)
    for (words, (code, out, err)), (found_code, found_out, found_err, heavy) in zip(cases.items(), found, strict=True):
        assert found_code == code, (words, found_err)
        assert out in found_out, words
        assert err in found_err, words
        assert heavy == [], words
