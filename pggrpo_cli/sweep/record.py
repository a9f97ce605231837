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
