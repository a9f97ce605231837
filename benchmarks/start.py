"""Seconds from the command to the first completion: imports, configuration, loading, the self-check, a rollout of one token.

    python benchmarks/start.py [--runs 5]

Warm: the model has been converted, files are in the page cache. Prints each run and the median, writes benchmarks/start.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from workloads import machine, model_folder

ROOT = Path(__file__).resolve().parents[1]
COMMAND = [
    "train", "logger=[]", "reward=python", "reward.python.path=first.py", "reward.python.name=first", "data.eval_size=0",
    "evaluation.every=null", "trainer.max_steps=1", "trainer.prompts_per_step=1", "sampler.group_size=2",
    "sampler.max_new_tokens=1", "checkpoint.keep_best=null", "hydra.run.dir=run",
]  # fmt: skip


REWARD = """
def first(completions):
    with open("calls", "a") as file:
        file.write("x")
    return [0.0] * len(completions)
"""
CALLS = 2
"""Of the reward: one before the model loads, with made-up completions, then that of the first rollout."""


def seconds(folder: Path) -> float:
    """Until the reward has the first completions; the run is ended then."""
    (folder / "first.py").write_text(REWARD)
    calls = folder / "calls"
    started = time.monotonic()
    with subprocess.Popen([sys.executable, "-m", "pggrpo_cli", *COMMAND], cwd=folder) as program:
        while not (calls.exists() and calls.stat().st_size >= CALLS):
            if program.poll() is not None:
                raise SystemExit(f"the run ended with {program.returncode} before its first completion")
            time.sleep(0.01)
        taken = time.monotonic() - started
        program.kill()
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    model_folder()
    found: list[float] = []
    for number in range(runs + 1):
        with tempfile.TemporaryDirectory() as folder:
            taken = seconds(Path(folder))
        print(f"{'warm-up' if number == 0 else f'run {number}'}: {taken:.2f} s", flush=True)
        if number:
            found.append(taken)
    result = {"machine": machine(), "seconds": found, "median": statistics.median(found)}
    print(f"median {result['median']:.2f} s")
    (ROOT / "benchmarks" / "start.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
