"""hydra/launcher=processes: each job of a sweep in a process of its own, several at a time."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf

from pggrpo_cli import run_directory as runs
from pggrpo_cli.errors import ConfigError, StoppedEarly
from pggrpo_cli.sweep.display import SweepDisplay, as_rows, opened
from pggrpo_cli.sweep.going_on import refuse_fewer_steps, refuse_other_job
from pggrpo_cli.sweep.job import JobFailed, SweepStopped, SweepTask, note_failure
from pggrpo_cli.sweep.jobs import Job, as_hydras, checked_job, job_config
from pggrpo_cli.sweep.processes import Ended, Order, Processes, command_of
from pggrpo_cli.sweep.record import Record, read_record
from pggrpo_cli.sweep.shares import Shares, shares
from pggrpo_cli.sweep.states import refuse_unknown_metric, state_of_job, states_of
from pggrpo_cli.sweep.trust import resume_command
from pggrpo_cli.sweep.words import telling

TARGET = f"{__name__}.ProcessLauncher"


@contextmanager
def known_to_hydra(target: str) -> Iterator[Mapping[int, Ended]]:
    """Within, Hydra's sweepers get our launcher if `target` names it: of itself Hydra makes only classes of packages that are
    installed below hydra_plugins, where every other program of Hydra's would find them too. Yields what our launcher ran in
    this session, by the number of the job; it fills as the jobs end."""
    plugins = Plugins.instance()
    ended: dict[int, Ended] = {}

    def instantiate(*, hydra_context: HydraContext, task_function: Any, config: DictConfig) -> Launcher:
        launcher = ProcessLauncher(ended)
        launcher.setup(hydra_context=hydra_context, task_function=task_function, config=config)
        return launcher

    if target == TARGET:
        plugins.instantiate_launcher = instantiate
    try:
        yield ended
    finally:
        vars(plugins).pop("instantiate_launcher", None)


@dataclass(frozen=True, kw_only=True)
class _Launch:
    """A job of this batch, and what becomes of it."""

    job: Job
    compose: Callable[[], DictConfig]
    words: str
    path: Path
    done: bool
    """From an earlier session: nothing is left to do."""

    @cached_property
    def cfg(self) -> DictConfig:
        """As Hydra has it. Composed when it is needed: of a hundred jobs it would take many seconds before the first starts."""
        return self.compose()


class ProcessLauncher(Launcher):
    """The jobs of a batch that are not done yet, sweep.jobs at a time."""

    def __init__(self, ended: dict[int, Ended]) -> None:
        self._ended = ended

    def setup(self, *, hydra_context: HydraContext, task_function: Any, config: DictConfig) -> None:
        assert isinstance(task_function, SweepTask)
        self._context, self._task, self._config = hydra_context, task_function, config
        self._shift = 0
        """How far the numbers of the folders are ahead of the sweeper's, which begins at 0 again when a study goes on."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        setup_globals()
        record = read_record(Path(str(self._config.hydra.sweep.dir)).absolute())
        launches = self._batch(record, job_overrides, initial_job_idx)
        if self._task.searches:
            record = record.with_jobs(one.job for one in launches)
            record.save()
        codes = self._run(record, launches)
        self._ended.update(codes)
        returned = [self._returned(one, codes) for one in launches]
        if self._task.searches:
            refuse_unknown_metric(states_of(record))
        return returned

    def _batch(self, record: Record, job_overrides: Sequence[Sequence[str]], first: int) -> list[_Launch]:
        jobs = self._jobs(record, job_overrides, first + self._shift)
        if self._task.searches and any(_taken(record, job) for job in jobs):
            self._shift = max(record.jobs, default=-1) + 1 - first
            jobs = self._jobs(record, job_overrides, first + self._shift)
        if self._task.searches:
            refuse_fewer_steps(record, jobs)
        others = [job.overrides for job in record.jobs.values()] if self._task.searches else []
        texts = telling([*others, *(job.overrides for job in jobs)])[len(others) :]
        loader, config = self._context.config_loader, self._config
        return [
            _Launch(
                job=job,
                compose=partial(job_config, loader, config, overrides, job.number),
                words=words,
                path=record.folder(job),
                done=runs.nothing_left(record.folder(job), job.config),
            )
            for job, overrides, words in zip(jobs, job_overrides, texts, strict=True)
        ]

    def _jobs(self, record: Record, job_overrides: Sequence[Sequence[str]], first: int) -> list[Job]:
        """Those of a plain sweep were checked before; what a search chooses is checked now."""
        numbers = range(first, first + len(job_overrides))
        if not self._task.searches:
            return [record.jobs[number] for number in numbers]
        otherwise = "it was not started, nor were those chosen with it"
        loader, config = self._context.config_loader, self._config
        return [
            checked_job(job_config(loader, config, words, number), number, self._task.check, otherwise)
            for number, words in zip(numbers, job_overrides, strict=True)
        ]

    def _run(self, record: Record, launches: Sequence[_Launch]) -> dict[int, Ended]:
        """What ended in this session, by number. Raises SweepStopped after a signal."""
        left = [one for one in launches if not one.done]
        for one in launches:
            if one.done:
                (one.path / runs.ERROR).unlink(missing_ok=True)  # it was done by somebody else, after it failed here
                print(f"job {one.job.number} was done before: {one.words}", flush=True)
        if not left:
            return {}
        sweep = self._config.sweep
        share = shares(sweep.jobs, len(launches), {str(one.job.config.get("device")) for one in launches})
        orders = [_order(record, one, share) for one in left]
        rows = as_rows(
            [state_of_job(one.job, one.path) for one in launches], {one.job.number: one.words for one in launches}
        )
        print(_heading(len(left), share), flush=True)
        with opened(rows) as display:
            watcher = _Noting(display, {one.job.number: one for one in left}, self._context, self._task)
            signals = _preemption_signals(one.job.config for one in left)
            processes = Processes(share.at_a_time, watcher, signals, again=resume_command(record))
            codes = {one.number: one for one in processes.run(orders)}
        if processes.stopped_by is not None:
            unfinished = [one for one in left if not runs.nothing_left(one.path, one.job.config)]
            states = [state_of_job(one.job, one.path).state for one in unfinished]
            failed = f", {states.count('failed')} failed" if "failed" in states else ""
            raise SweepStopped(
                f"stopped by {signal.Signals(processes.stopped_by).name}; of the jobs {states.count('stopped')} saved, "
                f"{states.count('waiting')} not begun, {len(launches) - len(unfinished)} done{failed}."
            )
        early = [one for one in codes.values() if one.code == StoppedEarly.exit_code]
        if early:
            raise SweepStopped(f"{len(early)} of the jobs stopped early and are saved; the first: {early[0].words}")
        return codes

    def _returned(self, one: _Launch, codes: Mapping[int, Ended]) -> JobReturn:
        state = state_of_job(one.job, one.path)
        found = _Returned(
            overrides=list(one.job.overrides), cfg=OmegaConf.create(one.job.config), working_dir=str(one.path),
            task_name="pggrpo", status=JobStatus.COMPLETED, _return_value=state.objective,
        )  # fmt: skip
        ended = codes.get(one.job.number)
        if ended is not None and ended.code != 0:
            if self._task.searches:
                found.status = JobStatus.FAILED
                found.return_value = JobFailed(f"job {one.job.number} ({one.words}) ended with exit code {ended.code}")
            else:
                found.return_value = math.nan
        return found


class _Returned(JobReturn):
    """Hydra's own says of a failure that is asked for what the display has said when it happened."""

    @property
    def return_value(self) -> Any:
        if self.status == JobStatus.FAILED:
            raise self._return_value
        return self._return_value

    @return_value.setter
    def return_value(self, value: Any) -> None:
        self._return_value = value


class _Noting:
    """A Watcher that notes failures in the jobs' folders and calls Hydra's callbacks, before the display is told."""

    def __init__(
        self, display: SweepDisplay, launches: Mapping[int, _Launch], context: HydraContext, task: SweepTask
    ) -> None:
        self._display, self._launches, self._callbacks, self._task = display, launches, context.callbacks, task

    def began(self, number: int) -> None:
        one = self._launches[number]
        with suppress(OSError):
            (one.path / runs.ERROR).unlink(missing_ok=True)
        with as_hydras(one.cfg):
            self._callbacks.on_job_start(config=one.cfg, task_function=self._task)
        self._display.began(number)

    def ended(self, ended: Ended, *, asked: bool) -> None:
        one = self._launches[ended.number]
        if ended.code not in (0, 75) and not asked:
            note_failure(one.path, ended.number, " ".join(one.job.overrides), ended.code, ended.words)
        result = JobReturn(overrides=list(one.job.overrides), working_dir=str(one.path), task_name="pggrpo")
        result.status = JobStatus.COMPLETED if ended.code == 0 else JobStatus.FAILED
        result.return_value = state_of_job(one.job, one.path).objective
        with as_hydras(one.cfg):
            self._callbacks.on_job_end(config=one.cfg, job_return=result)
        self._display.ended(ended, asked=asked)

    def look(self) -> None:
        self._display.look()

    def stopping(self, running: int) -> None:
        self._display.stopping(running)


def _order(record: Record, one: _Launch, share: Shares) -> Order:
    def environment(slot: int) -> dict[str, str]:
        wished = {str(key): str(value) for key, value in one.cfg.hydra.job.env_set.items()}
        return share.environment(slot, one.path) | wished

    def working_folder() -> str:
        return str(one.path) if one.cfg.hydra.job.chdir else record.working_folder

    return Order(
        number=one.job.number,
        command=command_of(record.path, one.job.number),
        folder=one.path,
        working_folder=working_folder,
        environment=environment,
    )


def _taken(record: Record, job: Job) -> bool:
    """Whether the folder of that number is of another job."""
    there = record.jobs.get(job.number)
    if there is None:
        return (record.folder(job) / runs.CONFIG).is_file()
    try:
        refuse_other_job(record.path, job, there.config)
    except ConfigError:
        return True
    return False


def _heading(jobs: int, share: Shares) -> str:
    words = "1 job" if jobs == 1 else f"{jobs} jobs"
    if share.at_a_time == 1:
        return words
    where = f", on GPUs {', '.join(share.gpus)}" if share.gpus else ""
    threads = "1 thread" if share.threads == 1 else f"{share.threads} threads"
    return f"{words}, {share.at_a_time} at a time with {threads} each{where}"


def _preemption_signals(configs: Iterable[Mapping[str, Any]]) -> list[int]:
    names = {(config.get("trainer") or {}).get("preemption_signal") for config in configs} - {None}
    return sorted(signal.Signals[str(name)] for name in names)
