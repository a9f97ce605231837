"""Do the fast paths learn what the plain ones learn? The same runs with and without them, seed by seed.

Plain: transformers' own generate, one prompt at a time, and one ordinary forward a completion, with the logits that the
model itself returns: nothing packed, no prompt shared, no attention, cache or head of ours; what a model that cannot run packed
gets anyway. The random numbers are the same, so what differs is rounding, and, once a near-tie has flipped, the text.
Prints rewards before and during training and writes benchmarks/plain_path.json.

    python benchmarks/plain_path.py [--seeds 1 2 3] [--steps 12] [--every 4]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from arithmetic import interval
from workloads import machine

PLAIN = """
import sys
from pggrpo_cli.policy import Policy
Policy._probe_packed = lambda policy: "the benchmark asks for the plain path"
from pggrpo_cli.cli import main
sys.exit(main(sys.argv[1:]))
"""


def rewards(start: list[str], seed: int, steps: int, every: int) -> dict[str, list[float]]:
    """Held-out greedy rewards at 0, `every`, …, and the training reward and mean length of every step."""
    with tempfile.TemporaryDirectory() as folder:
        words = [
            f"seed={seed}",
            f"trainer.max_steps={steps}",
            f"evaluation.every={every}",
            f"hydra.run.dir={folder}/run",
        ]
        words += ["checkpoint.every=null", "checkpoint.keep_best=null"]
        subprocess.run([*start, "train", *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        lines = [json.loads(line) for line in (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()]
    return {
        "held_out": [line["eval/reward"] for line in lines if "eval/reward" in line],
        "training": [line["reward"] for line in lines if "reward" in line],
        "length": [line["completions/mean_length"] for line in lines if "reward" in line],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--every", type=int, default=4, help="steps between evaluations")
    options = parser.parse_args()
    results: dict[str, Any] = {
        "machine": machine(),
        "seeds": options.seeds,
        "every": options.every,
        "fast": [],
        "plain": [],
    }
    for seed in options.seeds:
        for name, start in (("fast", [sys.executable, "-m", "pggrpo_cli"]), ("plain", [sys.executable, "-c", PLAIN])):
            results[name].append(rewards(start, seed, options.steps, options.every))
            held_out = ", ".join(f"{value:.3f}" for value in results[name][-1]["held_out"])
            print(f"seed {seed}, {name}: held-out {held_out}", flush=True)
    for place, step in enumerate(range(0, options.steps + 1, options.every)):
        fast, plain = ([run["held_out"][place] for run in results[name]] for name in ("fast", "plain"))
        differences = [one - other for one, other in zip(fast, plain, strict=True)]
        print(
            f"step {step:3}: fast {statistics.mean(fast):.3f} ± {interval(fast):.3f}, plain {statistics.mean(plain):.3f} ± "
            f"{interval(plain):.3f}, difference {statistics.mean(differences):+.3f} ± {interval(differences):.3f}"
        )
    (Path(__file__).parent / "plain_path.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
