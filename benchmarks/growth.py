"""How a step of pggrpo grows: with the group, the prompt, the completion and the number of prompts.

Forced lengths, SmolLM2-135M, each point a fresh process. For each axis the exponent e of a fit seconds = a + b · size^e
(1: linear), and what a thousand more prompt tokens cost with small and with large groups: prompts are computed once a
group, so it should be the same. Prints tables and writes benchmarks/growth.json.

    python benchmarks/growth.py [--steps 3]
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

import pggrpo_runs
from workloads import GRPO, Workload, machine

BASE = GRPO["W1 forced"]
AXES: dict[str, list[Workload]] = {
    "group_size": [replace(BASE, group_size=size) for size in (4, 8, 16, 32)],
    "prompt_tokens": [replace(BASE, prompt_tokens=size) for size in (120, 240, 480, 960)],
    "tokens": [replace(BASE, tokens=size) for size in (32, 64, 128, 256)],
    "prompts": [replace(BASE, prompts=size) for size in (2, 4, 8, 16)],
}
SMALL, LARGE = 4, 16


def seconds(workload: Workload, steps: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        return statistics.median(step["step"] for step in pggrpo_runs.grpo(workload, steps, Path(folder)))


def exponent(sizes: list[int], times: list[float]) -> float:
    """e of the best fit of a + b · size^e, by trying them: a and b ≥ 0 by least squares for each."""

    def error(power: float) -> float:
        xs = [size**power for size in sizes]
        mean_x, mean_y = statistics.mean(xs), statistics.mean(times)
        spread = sum((x - mean_x) ** 2 for x in xs)
        slope = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, times, strict=True)) / spread
        start = mean_y - slope * mean_x
        if start < 0:
            start, slope = 0.0, sum(x * y for x, y in zip(xs, times, strict=True)) / sum(x * x for x in xs)
        return sum((start + slope * x - y) ** 2 for x, y in zip(xs, times, strict=True))

    return min((step / 50 for step in range(10, 151)), key=error)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3, help="the first of them warms up and is not counted")
    options = parser.parse_args()
    result: dict[str, object] = {"machine": machine(), "base": BASE.title}
    for axis, workloads in AXES.items():
        sizes = [int(getattr(workload, axis)) for workload in workloads]
        times = [seconds(workload, options.steps) for workload in workloads]
        power = exponent(sizes, times)
        result[axis] = {"sizes": sizes, "seconds": times, "exponent": power}
        points = ", ".join(f"{size}: {time:.2f} s" for size, time in zip(sizes, times, strict=True))
        print(f"{axis:14} {points}   exponent {power:.2f}", flush=True)
    costs = {}
    for size in (SMALL, LARGE):
        short, long = (
            seconds(replace(BASE, group_size=size, prompt_tokens=length), options.steps) for length in (120, 960)
        )
        costs[size] = (long - short) / (960 - 120) * 1000
        print(f"1,000 more prompt tokens a prompt, groups of {size}: {costs[size]:.2f} s a step", flush=True)
    result["seconds_per_1000_prompt_tokens"] = costs
    assert not math.isnan(sum(costs.values()))
    (Path(__file__).parent / "growth.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
