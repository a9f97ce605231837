"""The jobs that a sweep would have, and how many of them at a time; composed and checked, nothing heavy loaded."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from pggrpo_cli.composing import composed_sweep
from pggrpo_cli.errors import ConfigError
from pggrpo_cli.saying import saying
from pggrpo_cli.sweep.jobs import Check, Job, all_jobs, checked_job, chosen_beforehand, job_config, typed_words
from pggrpo_cli.sweep.launcher import TARGET
from pggrpo_cli.sweep.shares import shares

TRIALS = ("n_trials", "budget")
"""What sweepers that search call the number of their jobs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Turns:
    """How many jobs run at a time, and on what."""

    at_a_time: int
    threads: int | None
    """Of each, where they are divided."""
    gpus: tuple[str, ...]
    launcher: Literal["processes", "joblib", "basic", "elsewhere"]
    """elsewhere: not on this machine."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SweptJobs:
    """Of a sweep that has not begun."""

    place: Path
    jobs: list[Job]
    """Of a search one, with the values that are not searched."""
    count: int
    """How many there will be; of a search at most."""
    swept: dict[str, list[str]]
    """Keys and their values; of a search the ranges."""
    searches: bool
    """Whether the jobs are chosen as it goes."""
    turns: Turns


def swept_jobs(overrides: Sequence[str], config_dir: str | None, check: Check) -> SweptJobs:
    """Of `pggrpo train -m <overrides>`. Raises ConfigError or UsageError, that of the first job that is wrong."""
    with composed_sweep("train", list(overrides), config_dir) as (hydra, cfg), saying("checking the jobs …"):
        searches = not chosen_beforehand(cfg)
        if searches:
            job, count, swept = _of_a_search(hydra.config_loader, cfg, check)
            jobs = [job]
        else:
            jobs = all_jobs(hydra.config_loader, cfg, check)
            count, swept = len(jobs), _swept(jobs)
        return SweptJobs(
            place=Path(str(cfg.hydra.sweep.dir)),
            jobs=jobs,
            count=count,
            swept=swept,
            searches=searches,
            turns=_turns(cfg, jobs, count),
        )


def _swept(jobs: Sequence[Job]) -> dict[str, list[str]]:
    """Keys of which not all jobs have the same value, with the values in their order."""
    values: dict[str, list[str]] = {}
    for word in (word for job in jobs for word in job.overrides):
        key, _, value = word.partition("=")
        if value not in values.setdefault(key.lstrip("+"), []):
            values[key.lstrip("+")].append(value)
    return {key: found for key, found in values.items() if len(found) > 1}


def _of_a_search(loader: ConfigLoader, cfg: DictConfig, check: Check) -> tuple[Job, int, dict[str, list[str]]]:
    """(a job with the values that are not searched, how many there will be, the ranges)."""
    params = OmegaConf.to_container(cfg.hydra.sweeper.get("params") or OmegaConf.create({}))
    assert isinstance(params, dict)
    lines = [f"{key!s}={value}" for key, value in params.items()] + typed_words(cfg.hydra)
    parsed = OverridesParser.create(config_loader=loader).parse_overrides(lines)
    fixed = [
        one for one in parsed if not one.is_sweep_override()
    ]  # before a range of the same key, as Optuna's sweeper has it
    ranges = {one.get_key_element(): one for one in parsed if one.is_sweep_override()}
    for one in fixed:
        ranges.pop(one.get_key_element(), None)
    found = job_config(loader, cfg, [str(one.input_line) for one in fixed], 0)
    job = checked_job(found, 0, check, "no job would be started")
    return job, _trials(cfg, ranges), {key: [one.get_value_string()] for key, one in ranges.items()}


def _trials(cfg: DictConfig, ranges: Mapping[str, Override]) -> int:
    sweeper = cfg.hydra.sweeper
    count = next((int(sweeper[name]) for name in TRIALS if sweeper.get(name) is not None), None)
    if count is None:
        raise ConfigError(
            f"`hydra/sweeper`: how many jobs {sweeper.get('_target_')} will choose is not known here. Plan one of them: "
            "pggrpo plan key=value …"
        )
    is_grid = str(OmegaConf.select(sweeper, "sampler._target_")).endswith("GridSampler")
    if is_grid and all(one.is_choice_sweep() for one in ranges.values()):
        count = min(count, math.prod(len(list(one.sweep_iterator())) for one in ranges.values()))
    return count


def _turns(cfg: DictConfig, jobs: Sequence[Job], count: int) -> Turns:
    target = str(cfg.hydra.launcher.get("_target_"))
    together = min(count, int(cfg.hydra.sweeper.get("n_jobs") or count))  # a search chooses so many at once
    if target == TARGET:
        share = shares(cfg.sweep.jobs, together, {str(job.config.get("device")) for job in jobs})
        threads = share.threads if share.at_a_time > 1 else None
        return Turns(at_a_time=share.at_a_time, threads=threads, gpus=share.gpus, launcher="processes")
    if target.startswith("hydra_plugins.hydra_joblib_launcher."):
        wished = int(cfg.hydra.launcher.get("n_jobs") or 1)
        at_a_time = wished if wished > 0 else max(1, (os.cpu_count() or 1) + 1 + wished)
        return Turns(at_a_time=min(at_a_time, together), threads=None, gpus=(), launcher="joblib")
    if target == "hydra._internal.core_plugins.basic_launcher.BasicLauncher":
        return Turns(at_a_time=1, threads=None, gpus=(), launcher="basic")
    wished = int(cfg.hydra.launcher.get("array_parallelism") or together)
    return Turns(at_a_time=min(wished, together), threads=None, gpus=(), launcher="elsewhere")
