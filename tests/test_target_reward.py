"""How a run ends at trainer.target_reward, and what may go on from it."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.command_line import run

LINE = ["train", "debug=fast", "trainer.max_steps=3", "evaluation.every=1", "checkpoint.every=1", "reward=python"]
LINE += ["reward.python.path=mine.py", "reward.python.name=one", "reward.python.isolated=false"]
ALLOW = "security.allow_targets=[pggrpo_cli.reward.python]"
ONE = """
import os, signal
calls = 0
def one(completions):
    global calls
    calls += 1
    if calls == int(os.environ.get("SIGNAL_AT", 0)):
        os.kill(os.getpid(), signal.SIGTERM)
    return [1.0] * len(completions)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(ONE)
    return tmp_path


def steps(run_dir: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_what_goes_on_from_a_run_that_met_its_target(folder: Path) -> None:
    words = ["hydra.run.dir=first", "trainer.target_reward=0.5"]
    assert run([*LINE, *words], folder).returncode == 0
    assert steps(folder / "first") == [0, 1]
    said = run(["resume", "first"], folder).stdout
    assert "trainer.target_reward=null" in said
    again = run(["resume", "first", ALLOW, "trainer.max_steps=2"], folder)
    assert again.returncode == 0
    assert "trainer.target_reward was reached at step 1: 1.000 ≥ 0.5" in again.stdout + again.stderr
    assert steps(folder / "first") == [0, 1]
    anew = run([*LINE, "hydra.run.dir=second", "trainer.target_reward=0.5", "resume.from=first"], folder)
    assert anew.returncode == 0, anew.stderr
    assert steps(folder / "second") == [2]
    assert (folder / "second" / "checkpoints" / "step-000002" / "manifest.json").exists()
    assert run(["resume", "first", ALLOW, "trainer.target_reward=null", "trainer.max_steps=2"], folder).returncode == 0
    assert steps(folder / "first") == [0, 1, 2]


@pytest.mark.fault("T5")
def test_a_signal_in_the_step_that_reaches_the_target(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dry run, evaluation before the first step, training, then the evaluation that reaches the target."""
    monkeypatch.setenv("SIGNAL_AT", "4")
    ended = run([*LINE, "hydra.run.dir=run", "trainer.target_reward=0.5"], folder)
    assert ended.returncode == 0, ended.stderr
    assert json.loads((folder / "run" / "finished.json").read_text()) == {"step": 1}


@pytest.mark.fault("T5")
def test_a_signal_while_the_rewards_are_tried_is_no_exit_of_theirs(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGNAL_AT", "1")
    ended = run([*LINE, "hydra.run.dir=run"], folder)
    assert ended.returncode == 128 + signal.SIGTERM, ended.stderr
    assert "SystemExit" not in ended.stderr


@pytest.mark.slow
@pytest.mark.fault("T2", "T5")
def test_an_abandoned_step_leaves_its_checkpoint_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The training of step 2: everything is on the disk already."""
    monkeypatch.setenv("SIGNAL_AT", "5")
    ended = run([*LINE, "hydra.run.dir=run"], folder)
    assert ended.returncode == 75, ended.stderr
    assert "in the rollout of step 2" in ended.stderr
    (manifest,) = (folder / "run" / "checkpoints").glob("step-000001/manifest.json")
    written = manifest.stat().st_mtime_ns
    monkeypatch.setenv("SIGNAL_AT", "2")  # after the dry run the training of step 2 again
    again = run(["resume", "run", ALLOW], folder)
    assert again.returncode == 75, again.stderr
    assert manifest.stat().st_mtime_ns == written


@pytest.mark.fault("T2")
def test_a_checkpoint_caught_between_two_renames_is_found(folder: Path) -> None:
    assert run([*LINE, "hydra.run.dir=run", "trainer.max_steps=1"], folder).returncode == 0
    checkpoints = folder / "run" / "checkpoints"
    os.rename(checkpoints / "step-000001", checkpoints / ".replaced-step-000001-77")
    ended = run(["resume", "run", ALLOW, "trainer.max_steps=2"], folder)
    assert ended.returncode == 0, ended.stderr
    assert steps(folder / "run") == [0, 1, 2]
