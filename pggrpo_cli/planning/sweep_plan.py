"""A sweep foreseen without running it: what tells its jobs apart, and what they take together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pggrpo_cli import config as schema
from pggrpo_cli.devices import resolve_device
from pggrpo_cli.errors import PggrpoError
from pggrpo_cli.planning.run_plan import RunPlan, plan_run
from pggrpo_cli.planning.swept_jobs import SweptJobs
from pggrpo_cli.saying import saying
from pggrpo_cli.sweep.jobs import Job
from pggrpo_cli.sweep.words import telling

IDLE = (
    *("seed", "name", "logger", "resume", "security", "sweep"),
    *("sampler.temperature", "sampler.top_p", "sampler.top_k", "sampler.min_p"),
    *("trainer.max_grad_norm", "trainer.max_minutes", "trainer.target_reward", "trainer.importance_cap"),
)
"""Keys (with all below them) on which no size and no count depends."""
BY_NUMBERS = ("loss", "advantage", "pairing", "optimizer", "scheduler", "reward")
"""Sections whose numbers change neither, as long as they do not become 0: an optimizer's momentum, the weight of a KL."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """Jobs of which one plan holds."""

    numbers: tuple[int, ...]
    words: str
    """What tells them from the others; empty if there are no others."""
    device: str
    plan: RunPlan


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepPlan:
    """Of all jobs together, where nothing else is said."""

    found: SweptJobs
    kinds: list[Kind]
    """Of a search one."""

    @property
    def jobs(self) -> int:
        return sum(len(one.numbers) for one in self.kinds)

    def total(self, name: str) -> int:
        """Of a number of RunCounts."""
        return sum(len(one.numbers) * int(getattr(one.plan.counts, name)) for one in self.kinds)

    def total_of_steps(self, name: str) -> int:
        """Of a number of RunCounts that is of a step."""
        return sum(len(one.numbers) * one.plan.counts.steps * int(getattr(one.plan.counts, name)) for one in self.kinds)


def plan_sweep(found: SweptJobs) -> SweepPlan:
    """Raises PggrpoError as the first job that is wrong would before its model loads."""
    kinds = [
        Kind(
            numbers=tuple(range(found.count)) if found.searches else tuple(job.number for job in same),
            words=words,
            device=str(resolve_device(str(same[0].config["device"]))),
            plan=plan,
        )
        for same, words, plan in _kinds(found.jobs, found.place)
    ]
    return SweepPlan(found=found, kinds=kinds)


def _kinds(jobs: Sequence[Job], place: Path) -> list[tuple[list[Job], str, RunPlan]]:
    members: dict[str, list[Job]] = {}
    for job in jobs:
        members.setdefault(json.dumps(_what_matters(job.config), sort_keys=True, default=str), []).append(job)
    shared = [
        [word for word in same[0].overrides if all(word in job.overrides for job in same)] for same in members.values()
    ]
    words = telling(shared) if len(shared) > 1 else [""]
    found, bases = [], dict[str, int]()
    for turn, same in enumerate(members.values()):
        with saying(f"planning {turn + 1} of {len(members)} …"):
            plan = _planned(same[0], place, bases)
        found.append((same, words[turn], plan))
    return found


def _planned(job: Job, place: Path, bases: dict[str, int]) -> RunPlan:
    """`bases`: by data, what a process holds without a model; this one has held those of the jobs before."""
    data = json.dumps(job.config["data"], sort_keys=True, default=str)
    try:
        plan = plan_run(schema.build(job.config), place / job.folder, bases.get(data))
    except PggrpoError as error:
        error.args = (f"{error}\nThis is job {job.number} of the sweep ({' '.join(job.overrides)}).",)
        raise
    bases.setdefault(data, plan.base)
    return plan


def _what_matters(value: Any, key: str = "") -> Any:
    """`value` of the dotted `key`, without what is IDLE and with numbers as BY_NUMBERS has them."""
    if isinstance(value, Mapping):
        inner = {f"{key}.{name}".lstrip("."): one for name, one in value.items()}
        return {path: _what_matters(one, path) for path, one in inner.items() if path not in IDLE}
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value != 0 if is_number and key.partition(".")[0] in BY_NUMBERS else value
