"""What the README and docs/results.md say of learning: experiments × seeds, held-out greedy reward before and at best.

Each run is a fresh process. Prints a table and writes benchmarks/arithmetic.json.

    python benchmarks/arithmetic.py [--seeds 1 2 3] [--experiments pg_grpo_arithmetic grpo_arithmetic dpo_arithmetic]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EXPERIMENTS = ("pg_grpo_arithmetic", "grpo_arithmetic", "dpo_arithmetic")
STUDENT_T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}


def run(experiment: str, seed: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        command = [sys.executable, "-m", "pggrpo_cli", "train", f"experiment={experiment}", f"seed={seed}"]
        subprocess.run([*command, f"hydra.run.dir={folder}/run"], check=True, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - started
        lines = [json.loads(line) for line in (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()]
    rewards = [(line["step"], line["eval/reward"]) for line in lines if "eval/reward" in line]
    best_step, best = max(rewards, key=lambda pair: pair[1])
    return {"seed": seed, "before": rewards[0][1], "best": best, "best_step": best_step, "seconds": seconds}


def interval(values: list[float]) -> float:
    """Half the width of Student's 95 % interval of the mean."""
    return (
        STUDENT_T_95[len(values)] * statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--experiments", nargs="+", default=list(EXPERIMENTS))
    options = parser.parse_args()
    output = Path(__file__).parent / "arithmetic.json"
    results: dict[str, list[dict[str, float]]] = json.loads(output.read_text())["runs"] if output.exists() else {}
    for experiment in options.experiments:
        results[experiment] = []
        for seed in options.seeds:
            results[experiment].append(run(experiment, seed))
            print(experiment, results[experiment][-1], flush=True)
    machine = f"{os.cpu_count()} cores, {platform.platform()}"
    output.write_text(json.dumps({"machine": machine, "runs": results}, indent=1) + "\n")
    print(f"\n| experiment | before | best kept checkpoint | minutes |\n|---|---|---|---|   ({machine})")
    for experiment, runs in results.items():
        before, best = [run["before"] for run in runs], [run["best"] for run in runs]
        print(
            f"| {experiment} | {statistics.mean(before):.2f} | {statistics.mean(best):.2f} ± {interval(best):.2f} "
            f"({', '.join(f'{value:.2f}' for value in best)}) | {statistics.mean(r['seconds'] for r in runs) / 60:.1f} |"
        )


if __name__ == "__main__":
    main()
