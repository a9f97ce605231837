"""One job of a sweep: as a process of its own, or as what another launcher of Hydra calls."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pggrpo_cli import run_directory as runs
from pggrpo_cli.errors import PggrpoError, StoppedEarly, TimeIsUp
from pggrpo_cli.failure import report
from pggrpo_cli.metrics import objective
from pggrpo_cli.warn import warn

if TYPE_CHECKING:
    from omegaconf import DictConfig


class SweepStopped(BaseException):
    """A signal stopped a job, and so the sweep. No Exception: Hydra would go on with the next job."""


class JobFailed(PggrpoError):
    """To a sweeper that searches: this trial has no value. The job's own words were told."""


def main(arguments: list[str]) -> int:
    """A process: trains job number arguments[1] of the sweep in arguments[0]. Time that is up ends it with 0, as a sweep goes on
    after it; else the exit code is that of a run."""
    from pggrpo_cli.sweep.record import read_record
    from pggrpo_cli.training import train_job

    record = read_record(Path(arguments[0]))
    job = record.jobs[int(arguments[1])]
    sys.argv = ["pggrpo", "train", "-m", *record.words]  # what environment.json says was typed
    print(f"job {job.number}: {' '.join(job.overrides)}", flush=True)
    try:
        train_job(job.config, record.folder(job), job.overrides)
        return 0
    except TimeIsUp as stop:
        report(stop)
        return 0
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        return report(error)


@dataclass(frozen=True, kw_only=True)
class SweepTask:
    """The task that Hydra's own launchers run, perhaps in another process or on another machine."""

    task: Callable[[DictConfig], float | None]
    check: Callable[[DictConfig], object]
    searches: bool
    """Whether the sweeper chooses as it goes: then a job that failed raises, which such a sweeper knows what to do with."""

    def __call__(self, cfg: DictConfig) -> float | None:
        """A failure is told at once, noted in the job's folder and counts as NaN."""
        from hydra.core.hydra_config import HydraConfig

        from pggrpo_cli.sweep.jobs import typed_words
        from pggrpo_cli.sweep.words import shortened

        hydra = HydraConfig.get()
        folder, words = Path(hydra.runtime.output_dir), " ".join(typed_words(hydra))
        shown = shortened([words])[0]
        print(f"job {hydra.job.num}: {shown}", file=sys.stderr, flush=True)
        (folder / runs.ERROR).unlink(missing_ok=True)
        try:
            self.check(cfg)
            value = self.task(cfg)
            return value if value is not None else _saved_objective(cfg, folder)
        except TimeIsUp as stop:
            report(stop)
            return objective(stop.metrics, cfg.sweep.metric)
        except StoppedEarly as stop:
            raise SweepStopped(f"{stop} The jobs after it were not started.") from stop
        except Exception as error:
            note_failure(folder, hydra.job.num, words, report(error), str(error))
            if self.searches:
                raise JobFailed(f"job {hydra.job.num} ({shown}) failed") from error
            return math.nan


def _saved_objective(cfg: DictConfig, folder: Path) -> float | None:
    from pggrpo_cli.report.metrics_file import read_metrics
    from pggrpo_cli.sweep.states import objective_of

    return objective_of(read_metrics(folder / runs.METRICS), cfg.sweep.metric)


def note_failure(folder: Path, number: int, overrides: str, code: int, words: str) -> None:
    """In the job's folder. A disk that refuses is only warned of: the other jobs go on."""
    failure = {"job": number, "overrides": overrides, "exit_code": code, "error": words}
    text = json.dumps(failure, indent=2, ensure_ascii=False) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / runs.ERROR).write_text(text.encode("utf-8", "replace").decode(), encoding="utf-8")
    except OSError as error:
        warn(f"what job {number} failed with cannot be noted in {folder / runs.ERROR}: {error.strerror}")
