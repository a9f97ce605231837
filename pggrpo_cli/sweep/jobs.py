"""The jobs of a sweep: which there are, and the configuration of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import filter_overrides
from omegaconf import DictConfig, OmegaConf, open_dict

from pggrpo_cli.config import plain
from pggrpo_cli.errors import ConfigError

Check = Callable[[DictConfig], object]


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run to be."""

    number: int
    folder: str
    """Within the sweep's."""
    overrides: tuple[str, ...]
    config: dict[str, Any]
    """Everything resolved."""


def chosen_beforehand(cfg: DictConfig) -> bool:
    """Whether all jobs are known from the start: another sweeper than Hydra's own chooses as it goes."""
    own = f"{BasicSweeper.__module__}.{BasicSweeper.__name__}"
    return bool(cfg.hydra.sweeper.get("_target_") == own)


def all_jobs(loader: ConfigLoader, cfg: DictConfig, check: Check) -> list[Job]:
    """The jobs of a plain sweep, checked. Raises ConfigError that says which one is wrong."""
    params = OmegaConf.to_container(cfg.hydra.sweeper.get("params") or OmegaConf.create({}))
    assert isinstance(params, dict)
    lines = [f"{key!s}={value}" for key, value in params.items()] + typed_words(cfg.hydra)
    parsed = OverridesParser.create(config_loader=loader).parse_overrides(lines)
    jobs: list[Job] = []
    for number, words in enumerate(BasicSweeper.split_arguments(parsed, None)[0]):
        jobs.append(checked_job(job_config(loader, cfg, words, number), number, check, "no job was started"))
    folders = [job.folder for job in jobs]
    for job in jobs:
        if folders.index(job.folder) != job.number:
            raise ConfigError(
                f"`hydra.sweep.subdir`: jobs {folders.index(job.folder)} and {job.number} would share the folder "
                f"{job.folder}. Use ${{hydra.job.num}} in it, or leave it out."
            )
    return jobs


def checked_job(found: DictConfig, number: int, check: Check, otherwise: str) -> Job:
    """Raises ConfigError of the job with that number."""
    words = typed_words(found.hydra)
    with as_hydras(found):
        try:
            check(found)
            config = plain(found)
        except ConfigError as error:
            shown = " ".join(filter_overrides(words))
            raise ConfigError(f"{error}\nThis is job {number} of the sweep ({shown}); {otherwise}.") from error
        return Job(number=number, folder=str(found.hydra.sweep.subdir), overrides=tuple(words), config=config)


def typed_words(hydra: DictConfig) -> list[str]:
    """The overrides of a run as they stand on the command line, interpolations and all."""
    words = OmegaConf.to_container(hydra.overrides.task, resolve=False)
    assert isinstance(words, list)
    return [str(word) for word in words]


def job_config(loader: ConfigLoader, cfg: DictConfig, words: Sequence[str], number: int) -> DictConfig:
    """As Hydra's own launcher makes it; `cfg` is the sweep's."""
    found = loader.load_sweep_config(cfg, list(words))
    with open_dict(found):
        found.hydra.job.id = number
        found.hydra.job.num = number
        folder = Path(str(found.hydra.sweep.dir)) / str(found.hydra.sweep.subdir)
        found.hydra.runtime.output_dir = str(folder.absolute())
    return found


@contextmanager
def as_hydras(found: DictConfig) -> Iterator[None]:
    """`${hydra:job.num}` is read from the configuration that Hydra holds at the time."""
    former = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(found)
    try:
        yield
    finally:
        HydraConfig.instance().cfg = former
