"""`pggrpo train -m` with processes that only pretend to train: failures, restarts, signals, what the jobs are given."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import yaml

from pggrpo_cli import run_directory as runs
from pggrpo_cli.cli import main
from pggrpo_cli.report.metrics_file import read_metrics
from pggrpo_cli.sweep import launcher
from pggrpo_cli.sweep.jobs import Job
from pggrpo_cli.sweep.record import Record, read_record
from pggrpo_cli.sweep.run import SweepFailed, _tell
from pggrpo_cli.sweep.states import JobState
from tests.command_line import environment
from tests.sweep.pretended import command_of, notes

pytest_plugins = ["tests.command_fixtures"]
START = """
import sys
import pggrpo_cli.sweep.launcher as launcher
from pggrpo_cli.cli import main
from tests.sweep.pretended import command_of
launcher.command_of = command_of
sys.exit(main(sys.argv[1:]))
"""
LINE = ["train", "-m", "model=tiny", "logger=[]", "hydra.sweep.dir=swept"]


@pytest.fixture
def sweep(groups: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Starts `pggrpo train -m …` in an empty folder; what each seed does is given by name."""
    monkeypatch.setattr(launcher, "command_of", command_of)
    monkeypatch.setattr("pggrpo_cli.sweep.processes.LOOK_SECONDS", 0.02)

    def run(*words: str, **behaviour: str) -> int:
        monkeypatch.setenv("BEHAVIOUR", json.dumps({name.removeprefix("seed"): one for name, one in behaviour.items()}))
        return main([*LINE, *words] if "sweep" not in words[:1] else list(words))

    return run


def files_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(file.relative_to(folder)): (file.read_bytes(), file.stat().st_mtime_ns)
        for file in folder.rglob("*")
        if file.is_file()
    }


@pytest.mark.fault("T36")
def test_failures_end_no_other_job_and_a_restart_runs_only_what_is_left(
    sweep: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep("seed=1,2,3", "sweep.jobs=3", seed2="killed", seed3="diverged") == 137
    out, err = capsys.readouterr()
    assert "3 jobs, 3 at a time" in out
    assert "job 1 failed" in out
    assert "killed by SIGKILL (memory may have run out); its last words: job 1 works" in out
    assert "exit code 3: NaN three times in a row." in out
    assert "2 of the jobs in swept failed: job 1 with exit code 137; job 2 with exit code 3" in err
    assert "pggrpo sweep resume swept" in err
    assert json.loads(Path("swept/1/error.json").read_text()) == {
        "job": 1,
        "overrides": "model=tiny logger=[] seed=2 sweep.jobs=3",
        "exit_code": 137,
        "error": "killed by SIGKILL (memory may have run out); its last words: job 1 works",
    }
    done = files_of(Path("swept/0"))
    assert "finished.json" in done
    assert sweep("sweep", "resume", "swept") == 0
    assert files_of(Path("swept/0")) == done
    assert [len(notes(Path("swept") / job)) for job in "012"] == [1, 2, 2]
    assert not list(Path("swept").glob("*/error.json"))
    out, err = capsys.readouterr()
    assert "job 0 was done before: seed=1" in out
    assert "job 1 goes on: seed=2 (swept/1/log.txt)" in out
    # They pretend 0.47, 0.48, 0.49: the interquartile mean is the middle one, and all 27 resamples give the interval.
    assert "0.480 [0.471, 0.489]  all of them (3 seeds)" in err
    assert err.index("0.490  job 2: seed=3") < err.index("0.480  job 1: seed=2") < err.index("0.470  job 0: seed=1")
    assert err.rstrip().endswith("compare them: pggrpo report swept")


@pytest.mark.fault("T11")
def test_a_job_that_another_process_works_on_is_not_done(
    sweep: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """Its folder says that it is running, and no more; what counts is that the sweep did not run it."""
    with runs.locked(Path("swept/0")):
        assert sweep("seed=1", seed1="locked out") == 5
    out, err = capsys.readouterr()
    assert "exit code 5: the folder is in use by process 1." in out
    assert "all jobs in swept failed: job 0 with exit code 5" in err
    runs.save_config(Path("swept/0"), read_record(Path("swept")).jobs[0].config)
    (Path("swept/0") / runs.CHECKPOINTS / "step-000002").mkdir(parents=True)
    (Path("swept/0") / runs.CHECKPOINTS / "step-000002" / "manifest.json").write_text("{}")
    runs.save_finished(Path("swept/0"), 2)  # what the other process leaves at its end
    assert sweep("sweep", "resume", "swept") == 0
    assert not Path("swept/0/error.json").exists()
    assert "job 0 was done before" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.fault("T6", "T36")
def test_a_job_whose_folder_the_disk_refuses_ends_no_other(
    sweep: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """A file in the way of one, and no room for the note of another's failure."""
    Path("swept").mkdir()
    Path("swept/1").touch()
    Path("swept/2/error.json").mkdir(parents=True)
    assert sweep("seed=1,2,3", "sweep.jobs=3", seed3="diverged") == 2
    out, err = capsys.readouterr()
    assert "job 1 failed" in out
    assert "exit code 2: it could not be started: " in out
    assert "swept/1: File exists" in out
    assert "job 0 finished" in out
    assert err.count("warning: what job ") == 2
    assert "2 of the jobs in swept failed: job 1 with exit code 2; job 2 with exit code 3" in err
    assert Path("swept/0/finished.json").exists()
    Path("swept/1").unlink()
    Path("swept/2/error.json").rmdir()
    assert sweep("sweep", "resume", "swept") == 0
    assert [len(notes(Path("swept") / job)) for job in "012"] == [1, 1, 2]


def of_states(*states: str) -> list[JobState]:
    job = Job(number=0, folder="0", overrides=(), config={})
    nothing = read_metrics(Path("nowhere"))
    return [
        JobState(job=replace(job, number=number), path=Path("0"), state=state, metrics=nothing, failure={})  # type: ignore[arg-type]
        for number, state in enumerate(states)
    ]


@pytest.mark.parametrize(("state", "code"), [("running", 5), ("waiting", 1)])
def test_a_job_that_no_launcher_ran_is_not_done(state: str, code: int, tmp_path: Path) -> None:
    """As other launchers leave it, who tell us no exit code."""
    record = Record(
        path=tmp_path, words=(), config_name="train", config_dir=None, working_folder=str(tmp_path), beforehand=True
    )
    with pytest.raises(SweepFailed, match=f"job 1 with exit code {code}") as failed:
        _tell(record, of_states("finished", state, "stopped"), {})
    assert failed.value.exit_code == code


@pytest.mark.slow
def test_each_is_an_ordinary_run(sweep: Callable[..., int], groups: Path) -> None:
    """Its configuration is the job's, ++keys and groups of one's own too, whatever its number says."""
    words = ["loss=other", "-cd", str(groups), "++reward.mine.timeout_s=7", "reward=mine", "seed=5,6"]
    assert sweep(*words, "name=job${hydra:job.num}", "+hydra.job.env_set.WISHED=yes") == 0
    config = yaml.safe_load(Path("swept/1/config.yaml").read_text())
    assert config["loss"] == {"_target_": "parts.Part", "beta": 0.2}
    assert config["reward"] == {"mine": {"_target_": "parts.Part", "weight": 2, "timeout_s": 7}}
    assert (config["seed"], config["name"]) == (6, "job1")
    typed = yaml.safe_load(Path("swept/1/overrides.yaml").read_text())
    assert typed[-2] == "seed=6"
    assert typed[-1].startswith("name=job$")  # Hydra puts backslashes before the rest
    (noted,) = notes(Path("swept/0"))
    assert noted["WISHED"] == "yes"
    assert noted["cwd"] == str(Path.cwd())
    assert noted["OMP_NUM_THREADS"] == os.environ.get("OMP_NUM_THREADS")  # one at a time has the machine to itself


@pytest.mark.slow
def test_what_a_job_is_given(sweep: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "5")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    monkeypatch.setattr("pggrpo_cli.sweep.shares.default_workers", lambda: 6)
    assert sweep("seed=1,2", seed1="slow-start", seed2="diverged") == 3
    given = [notes(Path("swept") / job)[0] for job in "01"]
    assert {one["CUDA_VISIBLE_DEVICES"] for one in given} == {"4", "7"}
    assert {(one["OMP_NUM_THREADS"], one["MKL_NUM_THREADS"], one["PGGRPO_PROCESSORS"]) for one in given} == {
        ("3", "5", "3")
    }
    # One that goes on keeps its threads, however many jobs there are at a time now.
    assert sweep("sweep", "resume", "swept", "sweep.jobs=1") == 0
    assert notes(Path("swept/1"))[1]["OMP_NUM_THREADS"] == "3"
    assert notes(Path("swept/1"))[1]["CUDA_VISIBLE_DEVICES"] == "4"


def test_every_job_is_checked_before_the_first(sweep: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep("sampler.top_p=0.5,2") == 2
    assert (
        "This is job 1 of the sweep (model=tiny logger=[] sampler.top_p=2); no job was started."
        in capsys.readouterr().err
    )
    assert not Path("swept").exists()
    assert sweep("seed=1,2", "hydra.sweep.subdir=here") == 2
    assert "`hydra.sweep.subdir`: jobs 0 and 1 would share" in capsys.readouterr().err
    assert sweep("seed=1", "hydra.sweep.dir=/proc/x") == 2
    assert "`hydra.sweep.dir`: /proc" in capsys.readouterr().err


@pytest.mark.slow
def test_another_sweep_is_refused(sweep: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep("seed=1,2") == 0
    before = files_of(Path("swept"))
    for words, said in (
        (["seed=1,3"], "`seed` of job 1 is 2 there and 3 here"),
        (["seed=1,2,3"], "it has 2 jobs, and this one 3"),
        (["seed=1,2", "loss=grpo"], "`loss._target_` of job 0 is pggrpo_cli.loss.pg_grpo.PgGrpo there"),
        (["experiment=grpo_arithmetic", "seed=1,2"], "holds another sweep"),
    ):
        assert sweep(*words) == 2
        err = capsys.readouterr().err
        assert "`hydra.sweep.dir`: " in err
        assert said in err
    assert files_of(Path("swept")) == before
    assert sweep("seed=1,2", "sweep.jobs=2") == 0  # the same one: nothing is left to do
    assert len(notes(Path("swept/0"))) == 1
    assert sweep("seed=1,2", "trainer.max_steps=99") == 0  # all go on
    assert len(notes(Path("swept/0"))) == 2


@pytest.mark.slow
def test_a_resume_says_what_differs(sweep: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    """By the key that is typed, and what to do; nothing is touched."""
    assert sweep("seed=1,2") == 0
    before = files_of(Path("swept"))
    for word, said in (
        ("loss.beta=0.5", "`loss.beta`: is 0.1 in job 0 of swept, and would be 0.5. A sweep goes on with"),
        (
            "loss=grpo",
            "and would be pggrpo_cli.loss.grpo.Grpo; loss.beta, loss.length_normalized, loss.gradient_scale would",
        ),
        ("seed=1,2,3", "`seed`: swept has 2 jobs, and would have 3."),
        ("hydra/sweeper=optuna", "`hydra/sweeper`: another one chose the jobs of swept."),
    ):
        capsys.readouterr()
        assert sweep("sweep", "resume", "swept", "sweep.jobs=2", word) == 2
        err = capsys.readouterr().err
        assert said in err
        assert f"Leave out {word}; what is to be different is another sweep" in err
        assert "hydra.sweep.dir" not in err
    assert sweep("sweep", "resume", "swept", "hydra.sweep.dir=other") == 2
    assert "a sweep goes on where it lies" in capsys.readouterr().err
    assert files_of(Path("swept")) == before


@pytest.mark.slow
def test_steps_are_not_taken_back(sweep: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    """A job that is beyond its last step would load, do nothing and seem finished."""
    assert sweep("seed=1,2,3", "trainer.max_steps=9", seed2="killed") == 137  # they pretend two steps, the killed one
    said = "`trainer.max_steps`: 1, and job 0 of swept is at step 2 already, and 1 more job is beyond it. Steps are not"
    for words in (["sweep", "resume", "swept", "trainer.max_steps=1"], ["seed=1,2,3", "trainer.max_steps=1"]):
        capsys.readouterr()
        assert sweep(*words) == 2
        err = capsys.readouterr().err
        assert said in err
        assert "give 2 or more, or leave it as it was." in err
    assert sweep("sweep", "resume", "swept", "trainer.max_steps=2") == 0


@pytest.mark.slow
def test_a_file_that_has_changed(sweep: Callable[..., int], groups: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep("loss=other", "-cd", str(groups), "security.allow_targets=[parts]", "seed=1,2") == 0
    file = groups / "loss" / "other.yaml"
    file.write_text(file.read_text().replace("0.2", "0.3"))
    capsys.readouterr()
    assert sweep("sweep", "resume", "swept", "security.allow_targets=[parts]") == 2
    err = capsys.readouterr().err
    assert "`loss.beta`: is 0.2 in job 0 of swept, and would be 0.3." in err
    assert "Leave out security" not in err
    assert "A file of the configuration has changed since: put it back; " in err


@pytest.mark.slow
def test_a_sweep_of_an_earlier_release(sweep: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    """It left no sweep.json: its jobs are known by their configurations."""
    assert sweep("seed=1,2", seed2="killed") == 137
    Path("swept/sweep.json").unlink()
    assert main(["sweep", "status", "swept"]) == 0
    assert "the same command with hydra.sweep.dir=swept" in capsys.readouterr().out
    assert sweep("seed=1,3") == 2
    assert "`seed` of job 1 is 2 there and 3 here" in capsys.readouterr().err
    assert sweep("seed=1,2") == 0
    assert [len(notes(Path("swept") / job)) for job in "01"] == [1, 2]


@pytest.mark.slow
@pytest.mark.fault("T11")
def test_two_at_once(sweep: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep("seed=1") == 0
    with runs.locked(Path("swept")):
        assert sweep("sweep", "resume", "swept") == 5
        assert "swept is in use by process" in capsys.readouterr().err


@pytest.mark.slow
def test_a_job_whose_time_is_up_is_no_failure(sweep: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep("seed=1,2", seed1="time up") == 0
    assert "(stopped)" in capsys.readouterr().err
    assert sweep("sweep", "resume", "swept") == 0
    assert [len(notes(Path("swept") / job)) for job in "01"] == [2, 1]


@pytest.mark.slow
def test_a_job_that_stops_by_itself_is_saved_and_not_done(
    sweep: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep("seed=1,2", seed1="server down") == 75
    err = capsys.readouterr().err
    assert "1 of the jobs stopped early" in err
    assert "the server does not answer" in err
    assert Path("swept/1/finished.json").exists()


@pytest.mark.slow
def test_an_error_of_a_jobs_own_is_shown_whole(sweep: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep("seed=1", seed1="refused") == 2
    assert "exit code 2: `data.path`: is not there." in capsys.readouterr().out


def started(folder: Path, *words: str, **behaviour: str) -> subprocess.Popen[str]:
    values = {**environment(), "BEHAVIOUR": json.dumps({name[4:]: one for name, one in behaviour.items()})}
    return subprocess.Popen(
        [sys.executable, "-c", START, *LINE, *words],
        cwd=folder, env=values, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for_jobs(folder: Path, count: int) -> list[int]:
    """Their processes, once so many wait for a signal."""
    end = time.monotonic() + 60
    while len(list(folder.glob("swept/*/waits"))) < count:
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)
    return [int(str(notes(file.parent)[-1]["pid"])) for file in folder.glob("swept/*/waits")]


def alive(pids: list[int]) -> list[int]:
    end = time.monotonic() + 5
    left = pids
    while left and time.monotonic() < end:
        left = [pid for pid in left if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]
        time.sleep(0.02)
    return left


@pytest.mark.slow
@pytest.mark.fault("T5", "T36")
def test_the_first_signal_lets_all_jobs_save(tmp_path: Path) -> None:
    program = started(tmp_path, "seed=1,2,3", "sweep.jobs=2", seed1="slow", seed2="slow")
    wait_for_jobs(tmp_path, 2)
    program.send_signal(signal.SIGINT)
    out, err = program.communicate(timeout=20)
    assert program.returncode == 75, err
    assert "stopping: the 2 jobs that run save and stop; a second signal ends them at once" in out
    assert "job 0 stopped, saved" in out
    assert (
        "stopped by SIGINT; of the jobs 2 saved, 1 not begun, 0 done. Go on with the sweep: pggrpo sweep resume swept"
        in err
    )
    assert not (tmp_path / "swept" / "2").exists()
    assert not list(tmp_path.glob("swept/*/error.json"))


@pytest.mark.slow
@pytest.mark.fault("T5")
def test_the_second_signal_ends_them(tmp_path: Path) -> None:
    program = started(tmp_path, "seed=1,2", "sweep.jobs=2", seed1="deaf", seed2="deaf")
    pids = wait_for_jobs(tmp_path, 2)
    program.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert program.poll() is None
    program.send_signal(signal.SIGTERM)
    _, err = program.communicate(timeout=10)
    assert program.returncode == 143
    assert err.endswith("ended at once. Go on from what the jobs saved before: pggrpo sweep resume swept\n")
    assert alive(pids) == []


@pytest.mark.slow
@pytest.mark.fault("T36")
def test_no_job_outlives_a_killed_launcher(tmp_path: Path) -> None:
    program = started(tmp_path, "seed=1,2", "sweep.jobs=2", seed1="deaf", seed2="deaf")
    pids = wait_for_jobs(tmp_path, 2)
    program.kill()
    program.communicate(timeout=10)
    assert alive(pids) == []
    again = started(tmp_path, "seed=1,2", "sweep.jobs=2")
    _, err = again.communicate(timeout=30)
    assert again.returncode == 0, err
