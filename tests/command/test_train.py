"""`pggrpo train` around the training itself: run directories, sweeps, resume.from, what is saved, exit codes."""

from __future__ import annotations

import json
import math
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

import pggrpo_cli
from pggrpo_cli import run_directory as runs
from pggrpo_cli import training as training_module
from pggrpo_cli.cli import main
from pggrpo_cli.composing import compose
from pggrpo_cli.errors import CheckpointError, ConfigError, DivergedError, RunLockedError, StoppedEarly, TimeIsUp
from pggrpo_cli.metrics import objective
from pggrpo_cli.tracking.identity import identity_of
from tests.command_fixtures import pretended_environment
from tests.command_line import PretendedTraining, make_checkpoint

BASE = ["model=tiny", "logger=mine"]
ONE_PROCESS = "hydra/launcher=basic"
pytest_plugins = ["tests.command_fixtures"]


@pytest.fixture
def train(groups: Path, training: PretendedTraining) -> object:
    def run(*words: str) -> int:
        return main(["train", "-cd", str(groups), *BASE, *words])

    return run


def run_dirs() -> list[Path]:
    return sorted(file.parent for file in Path().glob("outputs/**/config.yaml"))


def test_a_run(train, training: PretendedTraining) -> None:
    assert train("trainer.max_steps=3", "seed=5") == 0
    ((config, run_dir, resume_from),) = training.calls
    assert config.trainer.max_steps == 3
    assert resume_from is None
    assert run_dir.parent.parent == Path.cwd() / "outputs"
    assert "-train-" in run_dir.name
    saved = yaml.safe_load((run_dir / "config.yaml").read_text())
    assert saved["seed"] == 5
    assert saved["resume"] == {"from": None, "allow_changed": []}
    assert "hydra" not in saved
    assert yaml.safe_load((run_dir / "overrides.yaml").read_text()) == [*BASE, "trainer.max_steps=3", "seed=5"]
    assert json.loads((run_dir / "environment.json").read_text()) == pretended_environment("float32 on cpu")
    names = {path.name for path in run_dir.iterdir()} - {".lock"}
    assert names == {
        "config.yaml",
        "overrides.yaml",
        "environment.json",
        "metrics.jsonl",
        "finished.json",
        "checkpoints",
    }


@pytest.mark.fault("T11")
def test_two_runs_in_one_second(train) -> None:
    for _ in range(3):
        assert train() == 0
    assert len(run_dirs()) == 3


def test_a_users_reward_from_an_empty_folder(train, training: PretendedTraining) -> None:
    assert train("reward=mine", "reward.mine.weight=3") == 0
    assert training.calls[0][0].reward == {"mine": {"_target_": "parts.Part", "weight": 3}}


def test_from_python(groups: Path, training: PretendedTraining) -> None:
    cfg = compose("train", BASE, str(groups))
    assert pggrpo_cli.train(cfg) == 0.5
    assert pggrpo_cli.train(cfg, run_dir="here") == 0.5
    assert [call[1].parts[0] for call in training.calls] == ["outputs", "here"]
    training.reward = math.nan
    assert pggrpo_cli.train(cfg) is None
    cfg.sampler.top_p = 2
    with pytest.raises(ConfigError, match=r"sampler\.top_p"):
        pggrpo_cli.train(cfg)
    assert objective({"reward": 0.25}) == 0.25


def test_a_run_refused_late_leaves_no_folder(train, training: PretendedTraining) -> None:
    training.error = ConfigError("`data.path`: is missing")
    assert train() == 2
    assert not Path("outputs").exists()
    training.error = CheckpointError("nothing there")
    Path("kept").mkdir()
    Path("kept/notes.txt").write_text("somebody's own")
    assert train("hydra.run.dir=kept") == 4
    assert Path("kept/notes.txt").exists()


def test_a_run_that_diverged_keeps_its_folder(
    train, training: PretendedTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(
        config, run_dir: Path, resume_from: Path | None, interruption: object, begin: object
    ) -> dict[str, float]:
        (run_dir / "metrics.jsonl").write_text('{"step": 1}\n')
        raise DivergedError("NaN")

    monkeypatch.setattr(sys.modules["pggrpo_cli.assemble"], "run_training", diverge)
    assert train("hydra.run.dir=other") == 3
    assert Path("other/metrics.jsonl").exists()
    assert train("hydra.run.dir=other") == 2
    training.error = None
    monkeypatch.setattr(sys.modules["pggrpo_cli.assemble"], "run_training", training.run_training)
    identity_of(Path("other"), "wandb")
    assert train("hydra.run.dir=other", "resume.from=auto") == 0  # no checkpoint: it begins anew
    assert not Path("other/wandb.json").exists()  # else its first steps would be taken for sent


def test_a_bug_keeps_its_traceback_and_its_folder(train, training: PretendedTraining) -> None:
    training.error = RuntimeError("a bug")
    with pytest.raises(RuntimeError, match="a bug"):
        train()
    assert len(run_dirs()) == 1


@pytest.mark.fault("T11")
def test_a_directory_that_holds_a_run(train) -> None:
    assert train("hydra.run.dir=run") == 0
    assert train("hydra.run.dir=run") == 2
    assert Path("run/finished.json").exists()


@pytest.mark.fault("T11")
def test_a_locked_directory(train, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "LOCK_SECONDS", 0.1)
    with runs.locked(Path("run")):
        assert train("hydra.run.dir=run") == 5
        with pytest.raises(RunLockedError), runs.locked(Path("run")):
            pass
    assert "process" in capsys.readouterr().err
    assert train("hydra.run.dir=run") == 0


def test_sweep(train, training: PretendedTraining, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("-m", ONE_PROCESS, "seed=1,2", "loss=pg_grpo,other") == 0
    assert [(call[0].seed, call[0].loss["beta"]) for call in training.calls] == [(1, 0.1), (1, 0.2), (2, 0.1), (2, 0.2)]
    folders = [call[1] for call in training.calls]
    assert [folder.name for folder in folders] == ["0", "1", "2", "3"]
    assert len({folder.parent for folder in folders}) == 1
    assert folders[0].parents[2] == Path.cwd() / "outputs" / "sweeps"
    assert "job 3: model=tiny logger=mine seed=2 loss=other" in capsys.readouterr().err


@pytest.mark.fault("T36")
def test_sweep_goes_on_after_a_failure(
    train, training: PretendedTraining, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    errors = {2: DivergedError("NaN in seed 2"), 3: RuntimeError("bug in seed 3")}
    whole = training.run_training

    def fail(config, run_dir: Path, resume_from: Path | None, interruption: object, begin: object) -> dict[str, float]:
        training.error = errors.get(config.seed)
        return whole(config, run_dir, resume_from, interruption, begin)

    monkeypatch.setattr(sys.modules["pggrpo_cli.assemble"], "run_training", fail)
    assert train("-m", ONE_PROCESS, "seed=1,2,3,4") == 3
    assert [call[0].seed for call in training.calls] == [1, 2, 3, 4]
    err = capsys.readouterr().err
    assert "error: NaN in seed 2" in err
    assert "RuntimeError: bug in seed 3" in err
    assert "2 of the jobs in" in err


def test_a_sweep_of_which_no_job_is_done(
    train, training: PretendedTraining, capsys: pytest.CaptureFixture[str]
) -> None:
    training.error = DivergedError("NaN")
    assert train("-m", ONE_PROCESS, "seed=1,2") == 3
    err = capsys.readouterr().err
    assert "all jobs in" in err
    assert "The others are done" not in err


def test_keys_of_a_sweep_without_one(train, training: PretendedTraining, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("sweep.jobs=2") == 0
    assert "warning: `sweep`: its keys are for several runs" in capsys.readouterr().err
    assert train() == 0
    assert "warning" not in capsys.readouterr().err


def test_a_job_whose_time_is_up_does_not_end_a_sweep(
    train, training: PretendedTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = []

    def stop(config, run_dir: Path, resume_from: Path | None, interruption: object, begin: object) -> dict[str, float]:
        begun.append(run_dir)
        make_checkpoint(run_dir)
        raise TimeIsUp("trainer.max_minutes are over.", {"reward": 0.3})

    monkeypatch.setattr(sys.modules["pggrpo_cli.assemble"], "run_training", stop)
    assert train("-m", ONE_PROCESS, "seed=1,2,3") == 0
    assert len(begun) == 3


def test_a_run_whose_time_is_up_is_not_finished(
    train, training: PretendedTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(config, run_dir: Path, resume_from: Path | None, interruption: object, begin: object) -> dict[str, float]:
        make_checkpoint(run_dir)
        raise TimeIsUp("trainer.max_minutes are over.", {})

    assembled = sys.modules["pggrpo_cli.assemble"]
    monkeypatch.setattr(assembled, "run_training", stop)
    assert train("hydra.run.dir=run", "resume.from=auto") == 75
    monkeypatch.setattr(assembled, "run_training", training.run_training)
    assert train("hydra.run.dir=run", "resume.from=auto") == 0
    assert training.calls[0][2] == Path.cwd() / "run"


@pytest.mark.parametrize(
    ("run_dir", "words"),
    [("", "is empty"), ("file", "is a file"), ("file/deeper", "is a file"), ("/proc/x", "cannot be")],
)
@pytest.mark.fault("T7")
def test_a_directory_that_cannot_be(train, run_dir: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").write_text("")
    assert train(f"hydra.run.dir={run_dir}") == 2
    err = capsys.readouterr().err
    assert err.startswith("error: `hydra.run.dir`: ")
    assert words in err


@pytest.mark.fault("T11")
def test_a_run_that_loses_the_race_for_its_directory_leaves_it(
    train, training: PretendedTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look whether the directory is empty and the lock, another run has begun there."""
    where_to_start = training_module._where_to_start

    def slow(config, run_dir: Path, *, job: bool) -> object:
        found = where_to_start(config, run_dir, job=job)
        (run_dir / "config.yaml").write_text("the other's")
        other = runs.locked(run_dir)
        other.__enter__()
        held.append(other)
        return found

    held: list[object] = []
    monkeypatch.setattr(training_module, "_where_to_start", slow)
    monkeypatch.setattr(runs, "LOCK_SECONDS", 0.1)
    assert train("hydra.run.dir=run") == 5
    held[0].__exit__(None, None, None)  # type: ignore[attr-defined]
    assert Path("run/config.yaml").read_text() == "the other's"


def test_a_signal_ends_a_sweep(train, training: PretendedTraining) -> None:
    training.error = StoppedEarly("stopped after step 1.")
    assert train("-m", ONE_PROCESS, "seed=1,2,3") == 75
    assert len(training.calls) == 1


@pytest.mark.fault("T5")
def test_a_signal_in_the_last_step_of_a_job_ends_the_sweep_too(
    train, training: PretendedTraining, capsys: pytest.CaptureFixture[str]
) -> None:
    training.signal = signal.SIGTERM
    assert train() == 0  # alone it is done, and nothing is left to stop
    assert train("-m", ONE_PROCESS, "seed=1,2,3") == 75
    assert len(training.calls) == 2
    assert "which is done. The jobs after it were not started" in capsys.readouterr().err


@pytest.mark.fault("T31")
@pytest.mark.parametrize(
    "word", ["name=${oc.env:JUDGE_API_KEY}", "name=run-canary-8d2f-77a0c1", "data.prompt_suffix=canary-8d2f-77a0c1"]
)
def test_a_secret_comes_into_no_file_and_no_message(
    train, word: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JUDGE_API_KEY", "canary-8d2f-77a0c1")
    assert train(word, "hydra.run.dir=run") == 2
    out, err = capfd.readouterr()
    assert f"`{word.partition('=')[0]}`: holds the value of the environment variable JUDGE_API_KEY" in err
    assert "canary" not in out + err
    assert train("hydra.run.dir=run") == 0
    written = [file for file in Path().rglob("*") if file.is_file()]
    assert Path("run/environment.json") in written
    assert [file for file in written if b"canary" in file.read_bytes()] == []


@pytest.mark.parametrize(
    ("variable", "value", "word"),
    [
        ("EOS_TOKEN", "<|im_end|>", "sampler.stop=['<|im_end|>']"),
        ("INPUT_KEY", "questionaire", "name=questionaire"),
        ("DB_PASSWORD", "pggrpo_cli", "seed=2"),
        ("SORT_KEY", "1234567890123456", "name=x1234567890123456"),
    ],
)
def test_words_that_are_no_secrets(
    train, training: PretendedTraining, variable: str, value: str, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    assert train(word) == 0


def test_sweep_is_checked_before_its_first_job(train, training: PretendedTraining) -> None:
    assert train("-m", ONE_PROCESS, "sampler.top_p=0.5,2") == 2
    assert training.calls == []
    assert not Path("outputs").exists()


def resume_calls(training: PretendedTraining) -> Sequence[tuple[str, str | None]]:
    return [(call[1].name, None if call[2] is None else call[2].name) for call in training.calls]


def test_resume_auto_in_its_own_directory(train, training: PretendedTraining) -> None:
    training.finishes = False
    words = ("hydra.run.dir=run", "resume.from=auto")
    assert train(*words) == 0
    assert train(*words) == 0
    assert train(*words, "sampler.top_k=3") == 2
    training.finishes = True
    assert train(*words, "trainer.max_steps=99") == 0
    assert train(*words, "trainer.max_steps=99") == 0  # finished: nothing is left to do
    assert train(*words, "trainer.max_steps=100") == 0
    assert train(*words, "trainer.max_steps=100", "sampler.top_k=3", "resume.allow_changed=[sampler.top_k]") == 0
    assert resume_calls(training) == [("run", None)] + [("run", "run")] * 4


def test_resume_auto_finds_the_newest_unfinished(train, training: PretendedTraining) -> None:
    training.finishes = False
    assert train() == train("seed=2") == 0
    first = training.calls[0][1]
    assert train("resume.from=auto") == 0
    assert training.calls[2][1:] == (first, first)
    assert len(run_dirs()) == 2
    assert len(list(Path("outputs").glob("*/*"))) == 2
    assert train("resume.from=auto", "seed=3") == 0
    assert training.calls[3][2] is None
    with runs.locked(first):
        assert train("resume.from=auto") == 0
    assert training.calls[4][2] is None
    (training.calls[4][1] / "finished.json").write_text("{}")
    (first / "finished.json").write_text("{}")
    assert train("resume.from=auto") == 0
    assert training.calls[5][2] is None


def test_resume_from_a_run_or_checkpoint(train, training: PretendedTraining) -> None:
    assert train("hydra.run.dir=run") == 0
    checkpoint = make_checkpoint(Path("run"), 7)
    assert train("resume.from=run", "name=second", "trainer.max_steps=50") == 0
    assert train(f"resume.from={checkpoint}") == 0
    assert [call[2] for call in training.calls] == [None, Path("run"), checkpoint]
    assert training.calls[1][1].name.startswith(training.calls[1][1].name[:8] + "-second-")
    assert train("resume.from=run", "seed=9") == 2
    assert train("resume.from=nowhere") == 4
    assert len(run_dirs()) == 2
    with pytest.raises(CheckpointError, match=r"no config\.yaml"):
        runs.read_config(Path("nowhere"))


def test_earlier_environments_are_kept(train, training: PretendedTraining) -> None:
    training.finishes = False
    for _ in range(3):
        assert train("hydra.run.dir=run", "resume.from=auto") == 0
    found = json.loads(Path("run/environment.json").read_text())
    one = pretended_environment("float32 on cpu")
    assert found == {**one, "earlier": [one, one]}
