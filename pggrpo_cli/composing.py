"""A configuration out of conf/, folders of the user's and what was typed: Hydra's work, with our words for what is wrong."""

from __future__ import annotations

import os
import re
import secrets
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from hydra import version as hydra_version
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from pggrpo_cli.commented_config import commented_config
from pggrpo_cli.config import conf_dir, node_keys, register
from pggrpo_cli.errors import ConfigError, UsageError
from pggrpo_cli.hydra_errors import hydra_errors
from pggrpo_cli.suggestions import did_you_mean

# At import, not in a function: a launcher's worker process imports this module and then resolves the sweep's directory.
# The cache holds the value for one configuration: of a job, or of a whole sweep.
OmegaConf.register_new_resolver("run_suffix", lambda: secrets.token_hex(3), use_cache=True, replace=True)


def compose(command: str = "train", overrides: list[str] | None = None, config_dir: str | None = None) -> DictConfig:
    """The configuration of `pggrpo <command> <overrides>`, from Python. Raises ConfigError or UsageError."""
    return compose_with_place(command, overrides, config_dir)[0]


def compose_with_place(
    command: str = "train", overrides: list[str] | None = None, config_dir: str | None = None
) -> tuple[DictConfig, Path]:
    """The same with the directory that such a run would be written to; it is not made."""
    overrides = [settable(word) for word in overrides or []]
    with hydra_with(config_dir) as hydra:
        refuse_odd_words(command, overrides, hydra)
        with translated(hydra, command, overrides):
            cfg = composed(hydra, command, overrides, RunMode.RUN)
            refuse_hidden_files([*([config_dir] if config_dir else []), *cfg.hydra.searchpath])
            place = Path(str(cfg.hydra.run.dir))
            return OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"]), place


@contextmanager
def composed_sweep(
    command: str, overrides: list[str], config_dir: str | None = None
) -> Iterator[tuple[Hydra, DictConfig]]:
    """Within, Hydra and the configuration of the sweep `pggrpo <command> -m <overrides>`, to compose its jobs from. Raises
    ConfigError or UsageError, within too."""
    overrides = [settable(word) for word in overrides]
    with hydra_with(config_dir) as hydra:
        refuse_odd_words(command, overrides, hydra)
        with translated(hydra, command, overrides):
            cfg = composed(hydra, command, overrides, RunMode.MULTIRUN)
            refuse_hidden_files([*([config_dir] if config_dir else []), *cfg.hydra.searchpath])
            yield hydra, cfg


def shown(command: str, overrides: list[str], config_dir: str | None = None) -> str:
    """The same as text: YAML with the comments of its files. Raises ConfigError or UsageError."""
    overrides = [settable(word) for word in overrides]
    with hydra_with(config_dir) as hydra:
        refuse_odd_words(command, overrides, hydra)
        with translated(hydra, command, overrides):
            return commented_config(hydra, command, overrides)


def settable(word: str) -> str:
    """Keys that hold without being in a file can be given without Hydra's ++: those of every reward
    (`reward.mine.timeout_s=5`), of every source of a mixture (`data.sources.mine.prompt_suffix=…`), its weights, and
    columns (`data.where.level=3`)."""
    parts = word.partition("=")[0].split(".")
    of_node = len(parts) > 2 and parts[0] in ("reward", "data") and parts[-1] in node_keys(".".join(parts[:-1]))
    is_weight = len(parts) == 3 and parts[:2] == ["data", "weights"]
    below_a_key = parts[0] == "data" and bool({"where", "columns", "keep"} & set(parts[1:-1]))
    return f"++{word}" if of_node or is_weight or below_a_key else word


@contextmanager
def hydra_with(config_dir: str | None, *, their_modules: bool = True) -> Iterator[Hydra]:
    """Hydra with our conf/ (and `config_dir` before it) on its search path; with `their_modules` Python finds theirs too."""
    hydra_version.setbase("1.3")
    register()
    search_path = create_config_search_path(str(conf_dir()))
    if config_dir is not None:
        folder = os.path.abspath(config_dir)
        if not os.path.isdir(folder):
            raise ConfigError(f"`--config-dir`: there is no folder {folder}. Give the folder that holds your groups.")
        search_path.prepend(provider="command-line", path=f"file://{folder}", anchor=SearchPathQuery(provider="schema"))
    if their_modules:
        find_their_modules(config_dir)
    former, its_config = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
    GlobalHydra.instance().clear()
    try:
        yield Hydra.create_main_hydra2(task_name="pggrpo", config_search_path=search_path)
    finally:
        GlobalHydra.instance().clear()
        GlobalHydra.instance().hydra = former
        HydraConfig.instance().cfg = its_config  # else a later pggrpo_cli.train would lie where this one's run does


def find_their_modules(config_dir: str | None) -> None:
    """A user's own class lies in a file of theirs; last, so that no such file hides an installed module."""
    folders = [os.getcwd(), *([os.path.abspath(config_dir)] if config_dir is not None else [])]
    sys.path += [folder for folder in folders if folder not in sys.path]


@contextmanager
def translated(hydra: Hydra, name: str, overrides: list[str]) -> Iterator[None]:
    """Hydra's errors as ours; a search path that is not there is one too."""
    again = partial(composed, hydra, name, run_mode=RunMode.MULTIRUN)
    with hydra_errors(overrides, partial(_groups, hydra), partial(_options, hydra), again), warnings.catch_warnings():
        warnings.filterwarnings("error", message=r"(?s).*is not\s+available", category=UserWarning)
        yield


def composed(hydra: Hydra, name: str, overrides: list[str], run_mode: RunMode) -> DictConfig:
    return hydra.compose_config(
        config_name=name, overrides=list(overrides), run_mode=run_mode, with_log_configuration=False
    )


def _groups(hydra: Hydra) -> list[str]:
    return [group for group in hydra.list_all_config_groups() if group.partition("/")[0] != "hydra"]


def _options(hydra: Hydra, group: str) -> list[str]:
    return list(hydra.config_loader.get_group_options(group, ObjectType.CONFIG))


def refuse_odd_words(command: str, overrides: list[str], hydra: Hydra) -> None:
    """`pggrpo train foo`, `loss=null`: Hydra would speak of a missing EQUAL, or of a NoneType."""
    for word in overrides:
        key, equals, value = word.partition("=")
        bare = not equals and not word.startswith("~")
        if bare or re.fullmatch(r"(?i)null|true|false|[-+]?[\d.]+", value):
            options = _options(hydra, key)  # none: it is no group
            if options:
                names = ", ".join(options)
                raise UsageError(f"`{word}`: {key} is a group; write {key}=NAME. There are: {names}.")
        if bare:
            raise UsageError(
                f"`{word}`: is neither an option nor key=value.{did_you_mean(word, _groups(hydra))} Write key=value or "
                f"group=NAME; pggrpo {command} --help lists them."
            )


def refuse_hidden_files(folders: list[str]) -> None:
    """A file of the user's with the name of one of ours: Hydra would take ours without a word."""
    for folder in folders:
        path = Path(folder.removeprefix("file://")).resolve()
        if "://" in str(folder).removeprefix("file://") or path == conf_dir():
            continue
        for file in sorted(path.glob("*/*.yaml")):
            group, name = file.parent.name, file.stem
            if (conf_dir() / group / file.name).exists():
                raise ConfigError(
                    f"`{group}={name}`: {file} has the name of one of pggrpo's own, which would hide it. "
                    f"Give it a name of its own, such as my_{file.name}."
                )
