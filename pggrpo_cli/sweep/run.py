"""A sweep (-m) from its configuration to its summary: every job is checked before the first one starts, the error of one does
not end the others, and a folder that holds part of the same sweep is gone on with."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hydra._internal.hydra import Hydra
from omegaconf import DictConfig

from pggrpo_cli import run_directory as runs
from pggrpo_cli.errors import ConfigError, PggrpoError, RunLockedError, StoppedEarly
from pggrpo_cli.saying import saying
from pggrpo_cli.sweep.going_on import begun
from pggrpo_cli.sweep.job import JobFailed, SweepStopped, SweepTask
from pggrpo_cli.sweep.jobs import Check, Job, all_jobs, chosen_beforehand
from pggrpo_cli.sweep.launcher import known_to_hydra
from pggrpo_cli.sweep.processes import Ended
from pggrpo_cli.sweep.record import Record, folder_word, read_record
from pggrpo_cli.sweep.searching import at_home
from pggrpo_cli.sweep.states import JobState, found_states, refuse_unknown_metric, states_of
from pggrpo_cli.sweep.trust import resume_command


class SweepFailed(PggrpoError):
    """Some jobs failed, each with its own words before; the exit code is that of the first one."""


@dataclass(frozen=True)
class Asked:
    """What was typed."""

    config_name: str
    config_dir: str | None
    overrides: list[str]
    typed: Sequence[str] | None = None
    """Of them, beside `pggrpo sweep resume DIR`; None: all of them."""


def run_sweep(
    hydra: Hydra, asked: Asked, cfg: DictConfig, check: Check, task: Callable[[DictConfig], float | None]
) -> None:
    """Hydra.multirun with its jobs checked first. Raises SweepFailed, StoppedEarly, RunLockedError if another process works on
    it, or the first job's ConfigError."""
    beforehand = chosen_beforehand(cfg)
    with saying("checking the jobs …"):
        jobs = all_jobs(hydra.config_loader, cfg, check) if beforehand else []
    folder = str(cfg.hydra.sweep.dir)
    with _held(Path(folder)):
        begun(_record(Path(folder), asked, jobs, beforehand=beforehand), asked.typed)
        # Fixed here, because Hydra composes again and ${now:} and ${run_suffix:} would give another folder.
        fixed = [*asked.overrides, folder_word(folder), "hydra.mode=MULTIRUN"]
        task_of_a_job = SweepTask(task=task, check=check, searches=not beforehand)
        try:
            sweeper = str(cfg.hydra.sweeper.get("_target_"))
            with known_to_hydra(str(cfg.hydra.launcher.get("_target_"))) as ended, at_home(sweeper, Path(folder)):
                hydra.multirun(config_name=asked.config_name, task_function=task_of_a_job, overrides=fixed)
        except SweepStopped as stopped:
            again = resume_command(read_record(Path(folder).absolute()))
            raise StoppedEarly(f"{stopped} Go on with the sweep: {again}") from None
        except JobFailed as failed:  # a sweeper that bears no more failures, or has nothing to choose of
            print(f"the search ended: {failed}", file=sys.stderr, flush=True)
        except Exception as error:
            raise _of_a_plugin(error) from error
    _tell(read_record(Path(folder).absolute()), _known_jobs(Path(folder), beforehand=beforehand), ended)


def _of_a_plugin(error: Exception) -> Exception:
    """What a launcher or sweeper of others refuses, as a ConfigError with its key; `error` itself if it is of our code, of a
    job's, or a bug, which keep their traceback."""
    modules = [str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(error.__traceback__)]
    modules = modules[modules.index(__name__) + 1 :]
    plugin = next((one for one in modules if one.startswith("hydra_plugins.")), None)
    ours = any(one.partition(".")[0] == "pggrpo_cli" and one != at_home.__module__ for one in modules)
    is_bug = isinstance(error, (AssertionError, AttributeError, LookupError, NameError, TypeError))
    if plugin is None or ours or is_bug or isinstance(error, PggrpoError):
        return error
    said = f"{type(error).__name__}: {' '.join(str(error).split())}"
    if any(one.startswith("optuna.storages") for one in modules):
        return ConfigError(
            f"`hydra.sweeper.storage`: the trials cannot be kept there ({said}). Give a file, hydra.sweeper.storage="
            "sqlite:///study.db, or leave it out: then they are kept in memory."
        )
    if "launcher" in plugin:
        return ConfigError(
            f"`hydra/launcher`: it cannot run the jobs here ({said}). Mend that, or leave hydra/launcher out: then the jobs "
            "are processes on this machine."
        )
    return ConfigError(
        f"`hydra/sweeper`: it cannot choose jobs ({said}). Mend that, or leave hydra/sweeper out: then the jobs are all "
        "combinations of the values typed."
    )


def _record(folder: Path, asked: Asked, jobs: list[Job], *, beforehand: bool) -> Record:
    words = [word for word in asked.overrides if word.partition("=")[0] not in ("hydra.sweep.dir", "hydra.mode")]
    return Record(
        path=folder.absolute(),
        words=tuple(words),
        config_name=asked.config_name,
        config_dir=None if asked.config_dir is None else os.path.abspath(asked.config_dir),
        working_folder=os.getcwd(),
        beforehand=beforehand,
        jobs={job.number: job for job in jobs},
    )


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """The sweep's folder, locked."""
    try:
        with runs.locked(folder):
            yield
    except ConfigError as error:
        error.args = (str(error).replace("`hydra.run.dir`: ", "`hydra.sweep.dir`: ", 1),)
        raise


def _known_jobs(folder: Path, *, beforehand: bool) -> list[JobState]:
    """Other launchers than ours leave no list of what a search chose: then what lies there."""
    states = states_of(read_record(folder.absolute()))
    return states if states or beforehand else found_states(folder.absolute())


def _tell(record: Record, states: list[JobState], ended: Mapping[int, Ended]) -> None:
    """The summary, and an error if a job failed, stopped, or logged nothing to rank it by."""
    from pggrpo_cli.sweep.summary import summary

    print(summary(record.path, states), file=sys.stderr, flush=True)
    codes = {one.job.number: _exit_code(one, ended.get(one.job.number)) for one in states}
    failed = {number: code for number, code in codes.items() if code}
    if failed:
        listed = "; ".join(f"job {number} with exit code {code}" for number, code in failed.items())
        which = f"{len(failed)} of the jobs" if len(failed) < len(states) else "all jobs"
        others = " The others are done." if len(failed) < len(states) else ""
        error = SweepFailed(
            f"{which} in {runs.shown(record.path)} failed: {listed}.{others} To run them again, "
            f"from their checkpoints where there are some: {resume_command(record)}"
        )
        error.exit_code = next(iter(failed.values()))
        raise error
    refuse_unknown_metric(states)


def _exit_code(one: JobState, ended: Ended | None) -> int:
    """0: nothing is wrong with the job. As our launcher saw it end, else by what its folder says: another process may work in
    it, so that ours did not, or a launcher may have left it out."""
    if ended is not None:
        return ended.code
    if one.failure:
        code = one.failure.get("exit_code")
        return code if isinstance(code, int) and code else 1
    return {"running": RunLockedError.exit_code, "waiting": 1}.get(one.state, 0)
