"""A sweep (-m): every job is checked before the first one starts, and the error of one does not end the others."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import filter_overrides
from omegaconf import DictConfig, OmegaConf

from pggrpo_cli.errors import ConfigError, PggrpoError, StoppedEarly, TimeIsUp
from pggrpo_cli.failure import report
from pggrpo_cli.metrics import objective

ERROR_FILE = "error.json"


class SweepFailed(PggrpoError):
    """Some jobs failed, each with its own words on stderr; the exit code is that of the first one."""


class SweepStopped(BaseException):
    """A signal stopped a job, and so the sweep. No Exception: Hydra would go on with the next job."""


def run_sweep(
    hydra: Hydra,
    name: str,
    cfg: DictConfig,
    overrides: list[str],
    check: Callable[[DictConfig], object],
    task: Callable[[DictConfig], float | None],
) -> None:
    """Hydra.multirun with its jobs checked first. Raises SweepFailed, StoppedEarly, or the first job's ConfigError."""
    _check_jobs(hydra, cfg, check)
    folder = str(cfg.hydra.sweep.dir)
    for stale in Path(folder).glob(f"**/{ERROR_FILE}"):
        stale.unlink()
    # Fixed here, because Hydra composes again and ${now:} and ${run_suffix:} would give another folder.
    quoted = folder.replace("\\", "\\\\").replace("'", "\\'")
    fixed = [*overrides, f"hydra.sweep.dir='{quoted}'", "hydra.mode=MULTIRUN"]
    try:
        returned = hydra.multirun(config_name=name, task_function=partial(sweep_job, task), overrides=fixed)
    except SweepStopped as stopped:
        raise StoppedEarly(f"{stopped} The jobs after it were not started.") from None
    print(_summary(folder, returned), file=sys.stderr, flush=True)
    failures = sorted((json.loads(file.read_text()) for file in Path(folder).glob(f"**/{ERROR_FILE}")), key=_number)
    if failures:
        listed = "; ".join(
            f"job {one['job']} ({one['overrides']}) with exit code {one['exit_code']}" for one in failures
        )
        error = SweepFailed(f"{len(failures)} of the jobs in {folder} failed: {listed}. The others are done.")
        error.exit_code = failures[0]["exit_code"]
        raise error


def _summary(folder: str, returned: Any) -> str:
    """A line a job with what it came to, the best first. Another sweeper may return something else: then only where."""
    jobs = [job for batch in returned for job in batch] if isinstance(returned, list) else []
    values = [(job.return_value, " ".join(job.overrides or []), job.hydra_cfg.hydra.job.num) for job in jobs]
    ranked = sorted(values, key=lambda one: -math.inf if one[0] is None or math.isnan(one[0]) else one[0], reverse=True)
    lines = [f"sweep in {folder}: last eval/reward, else reward"]
    for value, words, number in ranked:
        shown = "   –  " if value is None or math.isnan(value) else f"{value:6.3f}"
        lines.append(f"  {shown}  job {number}: {words}")
    return "\n".join(lines)


def _number(failure: dict[str, int]) -> int:
    return int(failure["job"])


def _check_jobs(hydra: Hydra, cfg: DictConfig, check: Callable[[DictConfig], object]) -> None:
    """Each job of a plain sweep; another sweeper chooses its jobs as it goes, so they are checked one by one then."""
    if cfg.hydra.sweeper.get("_target_") != f"{BasicSweeper.__module__}.{BasicSweeper.__name__}":
        return
    params = OmegaConf.to_container(cfg.hydra.sweeper.get("params") or OmegaConf.create({}))
    assert isinstance(params, dict)
    lines = [f"{key!s}={value}" for key, value in params.items()] + list(cfg.hydra.overrides.task)
    parsed = OverridesParser.create(config_loader=hydra.config_loader).parse_overrides(lines)
    for number, job in enumerate(BasicSweeper.split_arguments(parsed, None)[0]):
        job_cfg = hydra.config_loader.load_sweep_config(cfg, list(job))
        try:
            check(job_cfg)
        except ConfigError as error:
            words = " ".join(filter_overrides(list(job)))
            raise ConfigError(f"{error}\nThis is job {number} of the sweep ({words}); no job was started.") from error


def sweep_job(task: Callable[[DictConfig], float | None], cfg: DictConfig) -> float | None:
    """One job. A failure is told at once, noted in the job's folder (another process may run it) and counts as NaN."""
    hydra = HydraConfig.get()
    folder, words = Path(hydra.runtime.output_dir), " ".join(hydra.overrides.task)
    print(f"job {hydra.job.num}: {words}", file=sys.stderr, flush=True)
    try:
        return task(cfg)
    except TimeIsUp as stop:
        report(stop)
        return objective(stop.metrics)
    except StoppedEarly as stop:
        raise SweepStopped(str(stop)) from stop
    except Exception as error:
        failure = {"job": hydra.job.num, "overrides": words, "exit_code": report(error), "error": str(error)}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ERROR_FILE).write_text(json.dumps(failure, indent=2) + "\n", encoding="utf-8")
        return math.nan
