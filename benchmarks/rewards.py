"""What it costs to run a reward in a process of its own, and what that brings: the pool against calling one by one.

A reward that does nothing shows the cost of a score; math-verify and programs in the sandbox show the gain of several processes.
Interleaved, a few rounds.

    python benchmarks/rewards.py [--scores 1000] [--programs 200] [--rounds 3] [--only-programs]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from workloads import machine

from pggrpo_cli.config import MAPPING_KEYS
from pggrpo_cli.reward.code_tests import CodeTests
from pggrpo_cli.reward.math_verify import MathVerify
from pggrpo_cli.scoring.output import Output
from pggrpo_cli.scoring.pool import IsolatedReward, Pool, default_workers
from pggrpo_cli.types import RewardContext, Sample

PROCESSES = 2
NOTHING = "def nothing(completion):\n    return 1.0\n"


def samples(count: int) -> list[Sample]:
    return [
        Sample(
            prompt="p",
            completion=f"So $x = \\frac{{{index}}}{{{index + 7}}}$, and the answer is $\\boxed{{\\frac{{{index}}}{{4}}}}$.",
            completion_ids=[0],
            finish_reason="stop",
            columns={"answer": f"{index / 4}"},
        )
        for index in range(count)
    ]


def seconds(pool: Pool, reward: IsolatedReward, batch: list[Sample]) -> float:
    started = time.perf_counter()
    futures = [pool.submit(reward, [sample]) for sample in batch]
    answers = [future.result().answers[0] for future in futures]
    assert answers == [1.0] * len(batch)
    return time.perf_counter() - started


def programs(options: argparse.Namespace) -> dict[str, float]:
    """Small programs with four tests each: one bubblewrap and one interpreter a program."""
    file = Path(__file__).parent.parent / "conf/reward/code_tests.yaml"
    keys = yaml.safe_load(file.read_text())["code_tests"]
    node = {key: value for key, value in keys.items() if key not in MAPPING_KEYS["reward"]}
    tests = [f"assert f({n}) == {n + 1}" for n in range(4)]
    completion = "```python\ndef f(n):\n    return n + 1\n```"
    batch = [
        Sample(prompt="p", completion=completion, completion_ids=[0], finish_reason="stop", columns={"tests": tests})
    ] * options.programs
    context = RewardContext(run_dir=None, device="cpu", seed=1)
    times: dict[str, list[float]] = {"here": [], "pool": []}
    reward = IsolatedReward(name="code_tests", node=node, timeout_s=60)
    settings = {key: value for key, value in node.items() if key != "_target_"}
    with Pool(PROCESSES, context, Output(None)) as pool, CodeTests(**settings).open(context) as here:
        seconds(pool, reward, batch[:8])
        for _ in range(options.rounds):
            started = time.perf_counter()
            assert here.score(batch) == [1.0] * len(batch)
            times["here"].append(time.perf_counter() - started)
            times["pool"].append(seconds(pool, reward, batch))
    one, several = (options.programs / statistics.median(times[name]) for name in ("here", "pool"))
    print(
        f"{options.programs} sandboxed programs of 4 tests: {one:.1f} a second one by one, {several:.1f} in {PROCESSES} "
        f"processes: {several / one:.2f}×; {1e3 / one:.0f} ms a program"
    )
    return {"programs": options.programs, "programs_a_second": one, "programs_a_second_in_pool": several}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scores", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--programs", type=int, default=200)
    parser.add_argument("--only-programs", action="store_true")
    options = parser.parse_args()
    print(machine())
    found: dict[str, Any] = {"machine": machine(), **programs(options)}
    if options.only_programs:
        return
    batch, here = samples(options.scores), MathVerify(answer_column="answer")
    times: dict[str, list[float]] = {"nothing": [], "here": [], "pool": []}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "mine.py"
        file.write_text(NOTHING)
        python: dict[str, Any] = {"_target_": "pggrpo_cli.reward.python.Python", "path": str(file), "name": "nothing"}
        maths: dict[str, Any] = {"_target_": "pggrpo_cli.reward.math_verify.MathVerify", "answer_column": "answer"}
        nothing = IsolatedReward(name="nothing", node=python, timeout_s=60)
        verify = IsolatedReward(name="math_verify", node=maths, timeout_s=60)
        with Pool(default_workers(), RewardContext(run_dir=None, device="cpu", seed=1), Output(None)) as pool:
            for reward in (nothing, verify):
                seconds(pool, reward, batch[:64])  # processes start, libraries are imported
            for _ in range(options.rounds):
                times["nothing"].append(seconds(pool, nothing, batch))
                started = time.perf_counter()
                for sample in batch:
                    assert here.score([sample]) == [1.0]
                times["here"].append(time.perf_counter() - started)
                times["pool"].append(seconds(pool, verify, batch))
    middle = {name: statistics.median(values) for name, values in times.items()}
    print(f"a score that does nothing: {1e3 * middle['nothing'] / options.scores:.2f} ms through the pool")
    print(
        f"{options.scores} math_verify scores: {middle['here']:.1f} s one by one, {middle['pool']:.1f} s in "
        f"{default_workers()} processes: {middle['here'] / middle['pool']:.2f}×"
    )
    found |= {
        "scores": options.scores,
        "processes": default_workers(),
        "ms_of_an_empty_score": 1e3 * middle["nothing"] / options.scores,
        "seconds_one_by_one": middle["here"],
        "seconds_in_pool": middle["pool"],
    }
    (Path(__file__).parent / "rewards.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
