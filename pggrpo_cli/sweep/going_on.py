"""A sweep that begins where one lies already: the same one goes on, of another it is said what differs and what to do."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pggrpo_cli import run_directory as runs
from pggrpo_cli.errors import ConfigError
from pggrpo_cli.report.settings import flattened
from pggrpo_cli.sweep.jobs import Job
from pggrpo_cli.sweep.record import SWEEP, Record, read_record
from pggrpo_cli.sweep.trust import command_to_resume

Typed = Sequence[str] | None
"""What was typed beside `pggrpo sweep resume DIR`; None: a whole command was."""
NAMED = 6
"""Keys that are listed, at most."""


def begun(new: Record, typed: Typed = None) -> Record:
    """Writes `new`, unless its folder holds this sweep already: then that goes on, with the jobs as they are now. Raises
    ConfigError for another sweep there, and for jobs that are further than they shall go."""
    old = read_record(new.path) if (new.path / SWEEP).is_file() else None
    if old is not None:
        _refuse_other_sweep(old, new, typed)
        jobs = new.jobs if new.beforehand else old.jobs
        new = replace(new, jobs=jobs)
    else:
        for job in new.jobs.values():
            if (new.folder(job) / runs.CONFIG).is_file():
                refuse_other_job(new.path, job, runs.read_config(new.folder(job)), typed)
    if new.beforehand:
        refuse_fewer_steps(new, new.jobs.values())
    new.save()
    return new


def _refuse_other_sweep(old: Record, new: Record, typed: Typed) -> None:
    if old.beforehand != new.beforehand:
        told = "`hydra/sweeper`: another one chose the jobs of {where}"
        raise _another(new.path, "another sweeper chose its jobs", told, typed)
    if not new.beforehand:
        before, now = _words_that_matter(old.words), _words_that_matter(new.words)
        for word in sorted(before ^ now):
            what = f"`{word}` is typed {'there only' if word in before else 'here only'}"
            raise _another(new.path, what, f"`{_key(word)}`: {{where}} was begun {_with(word, before)}", typed)
        return
    for number in sorted(old.jobs.keys() & new.jobs.keys()):
        refuse_other_job(new.path, new.jobs[number], old.jobs[number].config, typed)
    if len(old.jobs) != len(new.jobs):
        what = f"it has {len(old.jobs)} jobs, and this one {len(new.jobs)}"
        first = next(iter(_wrong_words(typed or ())), "hydra.sweeper.params")
        told = f"`{_key(first)}`: {{where}} has {len(old.jobs)} jobs, and would have {len(new.jobs)}"
        raise _another(new.path, what, told, typed)


def refuse_other_job(path: Path, job: Job, before: Mapping[str, Any], typed: Typed = None) -> None:
    """Raises ConfigError if `job` is not the one that was configured `before`."""
    wrong = [key for key in runs.changed_keys(before, job.config) if not runs.may_change(key, runs.MAY_CHANGE)]
    if wrong:
        was, now = flattened(before).get(wrong[0], "–"), flattened(job.config).get(wrong[0], "–")
        others = f"{', '.join(wrong[1:NAMED])}{' …' if len(wrong) > NAMED else ''}" if len(wrong) > 1 else ""
        what = f"`{wrong[0]}` of job {job.number} is {was} there and {now} here"
        told = f"`{wrong[0]}`: is {was} in job {job.number} of {{where}}, and would be {now}"
        if others:
            what, told = f"{what}, and {others} differ", f"{told}; {others} would change too"
        raise _another(path, what, told, typed)


def refuse_fewer_steps(record: Record, jobs: Iterable[Job]) -> None:
    """Raises ConfigError if one of `jobs` has a checkpoint behind its last step: it would load, do nothing and seem finished."""
    reached = {job.number: runs.newest_step(record.folder(job)) for job in jobs}
    steps = {job.number: job.config["trainer"]["max_steps"] for job in jobs}
    beyond = [number for number in reached if reached[number] > steps[number]]
    if beyond:
        first, others = beyond[0], len(beyond) - 1
        more = f", and {others} more {'job is' if others == 1 else 'jobs are'} beyond it" if others else ""
        raise ConfigError(
            f"`trainer.max_steps`: {steps[first]}, and job {first} of {runs.shown(record.path)} is at step {reached[first]} "
            f"already{more}. Steps are not taken back: give {max(reached[number] for number in beyond)} or more, or leave "
            "it as it was."
        )


def _words_that_matter(words: Iterable[str]) -> set[str]:
    """A search may be made longer, and go on elsewhere."""
    free = (*runs.MAY_CHANGE, "hydra")
    return {word for word in words if not runs.may_change(_key(word).partition("/")[0], free)}


def _wrong_words(typed: Sequence[str]) -> list[str]:
    return [word for word in typed if not runs.may_change(_key(word).replace("/", "."), (*runs.MAY_CHANGE, "hydra"))]


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+~")


def _with(word: str, before: Collection[str]) -> str:
    return f"with {word}, which is missing now" if word in before else f"without {word}"


def _another(path: Path, what: str, told: str, typed: Typed) -> ConfigError:
    """`what` differs from the sweep that a whole command would begin; `told` is that of one in {where} that shall go on."""
    where = str(runs.shown(path))
    if typed is None:
        return ConfigError(
            f"`hydra.sweep.dir`: {where} holds another sweep: {what}. Give another folder, or go on with that sweep as it is: "
            f"{command_to_resume(path)}."
        )
    words = _wrong_words(typed) or [word for word in typed if _key(word).partition("/")[0] == "hydra"]
    blame = f"Leave out {' '.join(words)}" if words else "A file of the configuration has changed since: put it back"
    return ConfigError(
        f"{told.replace('{where}', where)}. A sweep goes on with the configurations that its jobs have; free to change are "
        f"{', '.join(runs.MAY_CHANGE[2:])}. {blame}; what is to be different is another sweep, by pggrpo train -m in a folder "
        "of its own."
    )
