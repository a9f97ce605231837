"""A sweep of real runs from beginning to end: one job is killed half-way, the sweep is gone on with, and reported."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.command_line import environment, run
from tests.killing import fingerprint
from tests.sweep.test_launcher import files_of

pytestmark = pytest.mark.slow

STEPS = 12
COMMON = [
    "debug=fast", "logger=[]", f"trainer.max_steps={STEPS}", "checkpoint.every=1", "checkpoint.keep_last=1",
    "evaluation.every=6", "sampler.group_size=4", "sampler.max_new_tokens=8", "reward=length", "data.eval_size=8",
    "optimizer.lr=1e-2", "self_check.enabled=false",
]  # fmt: skip
SWEEP = ["train", "-m", "loss=grpo,pg_grpo", "seed=1,2,3", "sweep.jobs=2", "hydra.sweep.dir=swept", *COMMON]
VICTIM = 4  # loss=pg_grpo seed=2


def kill_half_way(job: Path, program: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 120
    while not any(job.glob("checkpoints/step-00000[3-9]/manifest.json")):
        assert time.monotonic() < end, "the job never came so far"
        assert program.poll() is None, program.communicate()
        time.sleep(0.005)
    os.kill(json.loads((job / ".owner.json").read_text())["pid"], signal.SIGKILL)


@pytest.mark.fault("T1", "T35", "T36")
@pytest.mark.timeout(300)
def test_two_losses_three_seeds_one_killed(tmp_path: Path) -> None:
    program = subprocess.Popen(
        [sys.executable, "-m", "pggrpo_cli", *SWEEP],
        cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    victim = tmp_path / "swept" / str(VICTIM)
    kill_half_way(victim, program)
    out, err = program.communicate(timeout=200)
    assert program.returncode == 137, err
    assert "killed by SIGKILL" in out
    assert "1 of the jobs in swept failed: job 4 with exit code 137. The others are done." in err
    others = {number: files_of(tmp_path / "swept" / str(number)) for number in range(6) if number != VICTIM}
    assert all("finished.json" in files for files in others.values())
    assert not (victim / "finished.json").exists()
    status = run(["sweep", "status", "swept", "--json"], tmp_path)
    states = [one["state"] for one in json.loads(status.stdout)["jobs"]]
    assert states == ["finished"] * 4 + ["failed", "finished"]

    again = run(["sweep", "resume", "swept"], tmp_path)
    assert again.returncode == 0, again.stderr
    assert "job 4 goes on" in again.stdout
    now = {number: files_of(tmp_path / "swept" / str(number)) for number in range(6) if number != VICTIM}
    assert now == others
    assert "the sweep: goes on in" in (victim / "log.txt").read_text()

    threads = json.loads((victim / "environment.json").read_text())["threads"]["torch"]
    assert threads == max(1, len(os.sched_getaffinity(0)) // 2)
    alone = subprocess.run(
        [sys.executable, "-m", "pggrpo_cli", "train", "loss=pg_grpo", "seed=2", "hydra.run.dir=alone", *COMMON],
        cwd=tmp_path, env={**environment(), "OMP_NUM_THREADS": str(threads)}, capture_output=True, text=True,
    )  # fmt: skip
    assert alone.returncode == 0, alone.stderr
    assert fingerprint(victim, STEPS) == fingerprint(tmp_path / "alone", STEPS)

    report = run(["report", "swept", "--terminal"], tmp_path)
    assert report.returncode == 0, report.stderr
    rows = [line.split() for line in report.stdout.splitlines()]
    counts = {row[0]: row[1].strip("()") for row in rows if row and row[0].startswith("loss=")}
    assert counts == {"loss=grpo": "3", "loss=pg_grpo": "3"}
    by_itself = run(["resume", "swept/3"], tmp_path)
    assert by_itself.returncode == 0
    assert f"swept/3 is finished, after step {STEPS}" in by_itself.stdout
