"""For tests of sweeps: a process that leaves what a job leaves, without training; what it does is told by its seed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

JOB = """
import json, os, signal, sys, time
from pathlib import Path
from pggrpo_cli import run_directory as runs
from pggrpo_cli.sweep.record import read_record
record = read_record(Path(sys.argv[1]))
job = record.jobs[int(sys.argv[2])]
folder, seed = record.folder(job), job.config["seed"]
does = json.loads(os.environ.get("BEHAVIOUR", "{}")).get(str(seed), "")
notes = {"pid": os.getpid(), "cwd": os.getcwd(), "time": time.monotonic()}
names = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "PGGRPO_PROCESSORS", "WISHED")
notes |= {name: os.environ.get(name) for name in names}
with open(folder / "notes.jsonl", "a") as file:
    file.write(json.dumps(notes) + chr(10))
print("job", job.number, "works", flush=True)
if does == "refused":
    print("error: `data.path`: is not there.", file=sys.stderr)
    sys.exit(2)
if does == "locked out":
    print("error: the folder is in use by process 1.", file=sys.stderr)
    sys.exit(5)
with runs.locked(folder):
    runs.save_config(folder, job.config)
    runs.save_overrides(folder, job.overrides)
    (folder / runs.ENVIRONMENT).write_text(json.dumps({"threads": {"torch": int(os.environ.get("OMP_NUM_THREADS") or 7)}}))
    value = 0.5 - 0.01 * abs(seed - 4) + (0.1 if "grpo.Grpo" in job.config["loss"]["_target_"] else 0)
    lines = [{"step": step, "reward": value * step / 2, "step_time": 1.5} for step in (1, 2)]
    def left(upto, end=""):
        (folder / runs.METRICS).write_text("".join(json.dumps(line) + chr(10) for line in lines[:upto]) + end)
        checkpoint = folder / runs.CHECKPOINTS / f"step-{upto:06d}"
        checkpoint.mkdir(parents=True, exist_ok=True)
        (checkpoint / "manifest.json").write_text("{}")
    left(1)
    if does == "slow-start":
        time.sleep(0.7)
    if does == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if does == "diverged":
        print("error: NaN three times in a row.", file=sys.stderr)
        sys.exit(3)
    if does == "time up":
        sys.exit(0)
    if does == "server down":
        print("stopped: the server does not answer.", file=sys.stderr)
        sys.exit(75)
    if does == "slow" or does == "deaf":
        def stop(number, frame):
            if does == "slow":
                print("stopped after step 1.", file=sys.stderr, flush=True)
                os._exit(75)
        signal.signal(signal.SIGTERM, stop)
        (folder / "waits").write_text("")
        while True:
            time.sleep(0.05)
    left(2)
    runs.save_finished(folder, 2)
"""


def command_of(sweep_dir: Path, number: int) -> list[str]:
    """In the place of pggrpo_cli.sweep.processes.command_of."""
    return [sys.executable, "-c", JOB, str(sweep_dir), str(number)]


def notes(folder: Path) -> list[dict[str, object]]:
    """What the sessions of a job noted of themselves."""
    file = folder / "notes.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
