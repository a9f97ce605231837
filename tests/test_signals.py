"""Signals to the real program: what it says, how it ends, what is left to go on from."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.command_line import environment, run

# Each call leaves a line; those of evaluation and training are slow enough to be hit by a signal.
REWARD = """
import time
def slow(completions):
    with open("calls", "a") as file:
        file.write("x")
    time.sleep(0 if len(open("calls").read()) == 1 else 0.7)
    return [float(len(text) % 3) for text in completions]
"""
LINE = [
    "train", "debug=fast", "hydra.run.dir=run", "trainer.max_steps=3", "evaluation.every=3",
    "trainer.preemption_signal=SIGUSR1", "reward=python", "reward.python.path=mine.py", "reward.python.name=slow",
]  # fmt: skip
DRY_RUN, FIRST_EVALUATION, FIRST_STEP, SECOND_STEP, LAST_EVALUATION = 1, 2, 3, 4, 6


def start(folder: Path, *more: str) -> subprocess.Popen[str]:
    (folder / "mine.py").write_text(REWARD)
    command = [sys.executable, "-m", "pggrpo_cli", *LINE, *more]
    return subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


def calls(folder: Path) -> int:
    file = folder / "calls"
    return len(file.read_text()) if file.exists() else 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.fault("T5")
def test_before_there_is_anything_to_lose_it_ends_at_once(number: int, code: int, tmp_path: Path) -> None:
    program = start(tmp_path)
    wait_for(lambda: (tmp_path / "run" / ".owner.json").exists())
    program.send_signal(number)
    assert program.wait(20) == code
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("number", "during", "step"),
    [(signal.SIGINT, FIRST_EVALUATION, 0), (signal.SIGTERM, FIRST_STEP, 0), (signal.SIGUSR1, SECOND_STEP, 1)],
)
@pytest.mark.fault("T5")
def test_the_first_signal_saves_and_says_how_to_go_on(number: int, during: int, step: int, tmp_path: Path) -> None:
    program = start(tmp_path)
    wait_for(lambda: calls(tmp_path) == during)
    sent = time.monotonic()
    program.send_signal(number)
    out, err = program.communicate(timeout=60)
    assert program.returncode == 75, err
    assert "in the rollout of step" in err or during == FIRST_EVALUATION
    assert time.monotonic() - sent < 30
    assert "stopping at the next safe place" in out
    assert (tmp_path / "run" / "checkpoints" / f"step-{step:06d}" / "manifest.json").exists()
    assert not (tmp_path / "run" / "checkpoints" / f"step-{step + 1:06d}").exists()
    command = err.strip().rpartition("Go on with: pggrpo ")[2]
    assert command.startswith("resume run ")
    done = run(command.split(" "), tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "finished.json").exists()
    assert [line.split(",")[0] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()] == [
        f'{{"step": {number}' for number in range(4)
    ]


@pytest.mark.fault("T5")
def test_the_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    program = start(tmp_path)
    wait_for(lambda: calls(tmp_path) == LAST_EVALUATION)  # which, after an update, is finished
    program.send_signal(signal.SIGINT)
    time.sleep(0.1)
    program.send_signal(signal.SIGINT)
    _, err = program.communicate(timeout=5)
    assert program.returncode == 130
    assert "ended at once" in err


@pytest.mark.slow
@pytest.mark.fault("T5")
def test_a_signal_ends_a_sweep_and_its_job_is_saved(tmp_path: Path) -> None:
    program = start(tmp_path, "-m", "seed=1,2", "hydra.sweep.dir=sweep")
    wait_for(lambda: calls(tmp_path) == SECOND_STEP)
    program.send_signal(signal.SIGTERM)
    _, err = program.communicate(timeout=60)
    assert program.returncode == 75, err
    assert "stopped by SIGTERM; of the jobs 1 saved, 1 not begun, 0 done." in err
    assert "Traceback" not in err + (tmp_path / "sweep" / "0" / "log.txt").read_text()
    assert (tmp_path / "sweep" / "0" / "checkpoints" / "step-000001" / "manifest.json").exists()
    assert not (tmp_path / "sweep" / "1" / "checkpoints").exists()
    refused = run(["sweep", "resume", "sweep"], tmp_path)
    assert refused.returncode == 2
    assert "`reward.python._target_`: this sweep uses" in refused.stderr
    command = err.partition("Go on with the sweep: pggrpo ")[2]
    done = run(command.strip().split(" "), tmp_path)
    assert done.returncode == 0, done.stderr
    assert all((tmp_path / "sweep" / job / "finished.json").exists() for job in "01")
