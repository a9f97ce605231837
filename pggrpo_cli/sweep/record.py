"""sweep.json in the folder of a sweep: what was typed, where, and its jobs; so that it can go on without being typed again."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pggrpo_cli import __version__
from pggrpo_cli import run_directory as runs
from pggrpo_cli.config import brought_up_to_date
from pggrpo_cli.errors import CheckpointError, ConfigError, UsageError
from pggrpo_cli.json_file import read_object
from pggrpo_cli.report.settings import flattened
from pggrpo_cli.sweep.jobs import Job
from pggrpo_cli.whole_file import write_whole

SWEEP = "sweep.json"


def folder_word(folder: str | Path) -> str:
    """What to type for the folder of a sweep, whatever it is called."""
    # To Hydra a backslash is one unless it comes before a quote.
    quoted = re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), str(folder))
    return f"hydra.sweep.dir='{quoted}'"


@dataclass(frozen=True, kw_only=True)
class Record:
    """Of one sweep."""

    path: Path
    words: tuple[str, ...]
    """Overrides as they were typed, without the folder of the sweep."""
    config_name: str
    config_dir: str | None
    """Absolute."""
    working_folder: str
    """Which relative paths in the configuration begin in."""
    beforehand: bool
    """Whether `jobs` are all there will be."""
    jobs: dict[int, Job] = field(default_factory=dict)

    def folder(self, job: Job) -> Path:
        return self.path / job.folder

    def with_jobs(self, jobs: Iterable[Job]) -> Record:
        return replace(self, jobs=self.jobs | {job.number: job for job in jobs})

    def save(self) -> None:
        values = {"pggrpo": __version__} | asdict(self) | {"jobs": [asdict(job) for job in self.jobs.values()]}
        del values["path"]
        try:
            write_whole(self.path / SWEEP, json.dumps(values, ensure_ascii=False) + "\n")
        except OSError as error:
            raise ConfigError(
                f"`hydra.sweep.dir`: {self.path / SWEEP} cannot be written: {error.strerror}. Make room or give another."
            ) from error


def read_record(path: Path) -> Record:
    """Raises UsageError if no sweep of ours lies there."""
    if not (path / SWEEP).is_file():
        what = "is no folder" if not path.is_dir() else f"holds no {SWEEP}: it is not the folder of a sweep"
        more = ""
        if (path.parent / SWEEP).is_file():
            more = f" It is a job of {path.parent}."
        elif runs.has_checkpoints(path):
            more = f" It is a run: pggrpo resume {path}."
        raise UsageError(f"{path} {what}.{more} Give the folder of a sweep, such as outputs/sweeps/<date>/<time>-….")
    values = read_object(path / SWEEP)
    try:
        return Record(
            path=path,
            words=tuple(map(str, values["words"])),
            config_name=str(values["config_name"]),
            config_dir=None if values["config_dir"] is None else str(values["config_dir"]),
            working_folder=str(values["working_folder"]),
            beforehand=bool(values["beforehand"]),
            jobs={int(one["number"]): _job(one, values.get("pggrpo")) for one in values["jobs"]},
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path / SWEEP} is damaged ({type(error).__name__}: {error}). The jobs stand; to go on with the sweep type its "
            f"command again with hydra.sweep.dir={path}."
        ) from error


def _job(values: Mapping[str, Any], release: object) -> Job:
    folder, config = Path(str(values["folder"])), dict(values["config"])
    if folder.is_absolute() or ".." in folder.parts:
        raise ValueError(f"a job lies outside, in {folder}")
    return Job(
        number=int(values["number"]),
        folder=str(folder),
        overrides=tuple(map(str, values["overrides"])),
        config=config if release == __version__ else brought_up_to_date(config),
    )


def begun(new: Record) -> Record:
    """Writes `new`, unless its folder holds this sweep already: then that goes on, with the jobs as they are now. Raises
    ConfigError for another sweep there, saying what differs."""
    old = read_record(new.path) if (new.path / SWEEP).is_file() else None
    if old is not None:
        _refuse_other_sweep(old, new)
        jobs = new.jobs if new.beforehand else old.jobs
        new = replace(new, jobs=jobs)
    else:
        for job in new.jobs.values():
            if (new.folder(job) / runs.CONFIG).is_file():
                refuse_other_job(new.path, job, runs.read_config(new.folder(job)))
    new.save()
    return new


def _refuse_other_sweep(old: Record, new: Record) -> None:
    what = ""
    if old.beforehand != new.beforehand:
        what = "another sweeper chose its jobs"
    elif not new.beforehand:
        before, now = _words_that_matter(old.words), _words_that_matter(new.words)
        differing = sorted(before ^ now)
        if differing:
            what = f"`{differing[0]}` is typed {'there only' if differing[0] in before else 'here only'}"
    else:
        for number in sorted(old.jobs.keys() & new.jobs.keys()):
            refuse_other_job(new.path, new.jobs[number], old.jobs[number].config)
        if len(old.jobs) != len(new.jobs):
            what = f"it has {len(old.jobs)} jobs, and this one {len(new.jobs)}"
    if what:
        raise ConfigError(_another(new.path, what))


def _words_that_matter(words: Iterable[str]) -> set[str]:
    """A search may be made longer, and go on elsewhere."""
    free = (*runs.MAY_CHANGE, "hydra")
    return {word for word in words if not runs.may_change(word.partition("=")[0].lstrip("+~").partition("/")[0], free)}


def refuse_other_job(path: Path, job: Job, before: Mapping[str, Any]) -> None:
    """Raises ConfigError if `job` is not the one that was configured `before`."""
    wrong = [key for key in runs.changed_keys(before, job.config) if not runs.may_change(key, runs.MAY_CHANGE)]
    if wrong:
        was, now = flattened(before).get(wrong[0], "–"), flattened(job.config).get(wrong[0], "–")
        more = f", and {len(wrong) - 1} more keys differ" if len(wrong) > 1 else ""
        raise ConfigError(_another(path, f"`{wrong[0]}` of job {job.number} is {was} there and {now} here{more}"))


def _another(path: Path, what: str) -> str:
    return (
        f"`hydra.sweep.dir`: {path} holds another sweep: {what}. Give another folder, or go on with that sweep as it is: "
        f"pggrpo sweep resume {path}."
    )
