"""For tests of programs in sandboxes: one sample, scored in a process of its own as in a run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil

from pggrpo_cli.scoring.answers import Answer
from pggrpo_cli.scoring.output import Output
from pggrpo_cli.scoring.pool import IsolatedReward, Pool
from pggrpo_cli.types import RewardContext, Sample

SETTINGS: dict[str, Any] = {
    "_target_": "pggrpo_cli.reward.code_tests.CodeTests",
    "tests_column": "tests",
    "setup_column": "setup",
    "entry_point_column": "entry_point",
    "partial": True,
    "fenced_only": False,
    "sandbox": "bwrap",
    "cpu_seconds": 1,
    "wall_seconds": 3.0,
    "memory_mb": 256 + os.getpid() % 199,  # tells these processes from those of other tests at the same time
}


def sample_of(program: str, tests: Any, **columns: Any) -> Sample:
    columns = {"tests": tests, **columns}
    return Sample(prompt="p", completion=program, completion_ids=[0], finish_reason="stop", columns=columns)


@dataclass(frozen=True)
class Judge:
    """One worker of a pool."""

    pool: Pool
    settings: dict[str, Any]

    def score(self, program: str, tests: Any, **columns: Any) -> Answer:
        reward = IsolatedReward(name="code_tests", node=self.settings, timeout_s=60)
        (answer,) = self.pool.submit(reward, [sample_of(program, tests, **columns)]).result(120).answers
        return answer

    def worker(self) -> int:
        (pid,) = self.pool.pids()
        return pid

    def left_over(self) -> list[psutil.Process]:
        """Processes that a program has left behind, whoever has become their parent."""
        mark = f'"memory_mb": {self.settings["memory_mb"]}'
        found = psutil.process_iter(["cmdline"])
        left = [one for one in found if any(mark in word for word in one.info["cmdline"] or ())]
        _, alive = psutil.wait_procs(left, timeout=2)
        return alive


@contextmanager
def judge(**settings: Any) -> Iterator[Judge]:
    with Pool(1, RewardContext(run_dir=None, device="cpu", seed=1), Output(None)) as pool:
        yield Judge(pool, SETTINGS | settings)
