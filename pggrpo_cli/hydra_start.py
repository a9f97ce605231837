"""A command that Hydra composes: its options, what is checked before a run directory is made, one run or a sweep.

hydra.main makes the run directory before anything of ours sees the configuration, and ends the process in its own way.
So this is hydra.main's own sequence (_run_hydra in hydra/_internal/utils.py of Hydra 1.3) with our checks in between.
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from hydra import version as hydra_version
from hydra._internal.callbacks import Callbacks
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.utils import JobStatus, run_job
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf

from pggrpo_cli import __version__
from pggrpo_cli.commented_config import commented_config, help_page
from pggrpo_cli.config import NAMED_GROUPS, SECTIONS, SINGLE_GROUPS, conf_dir, node_keys, register
from pggrpo_cli.errors import ConfigError, UsageError
from pggrpo_cli.hydra_errors import hydra_errors
from pggrpo_cli.suggestions import did_you_mean
from pggrpo_cli.sweep.run import Asked, run_sweep

Check = Callable[[DictConfig], object]
Task = Callable[[DictConfig], "float | None"]

# At import, not in a function: a launcher's worker process imports this module and then resolves the sweep's directory.
# The cache holds the value for one configuration: of a job, or of a whole sweep.
OmegaConf.register_new_resolver("run_suffix", lambda: secrets.token_hex(3), use_cache=True, replace=True)


def start(command: str, arguments: list[str], check: Check, task: Task, check_sweep: Check = lambda cfg: None) -> None:
    """Runs `pggrpo <command> <arguments>`: shows what an option asks for, or checks and then runs `task`.

    `task` runs in a run directory of its own, hydra.runtime.output_dir; under -m once for each job, where the error
    of one does not end the others. `check_sweep` is given the configuration of a sweep before anything of it is made.
    Raises PggrpoError.
    """
    if "--version" in arguments:
        print(f"pggrpo {__version__}")
        return
    options = _parse(command, arguments)
    options.overrides = [_settable(word) for word in options.overrides]
    overrides, name = options.overrides, options.config_name or command
    if options.config_dir is None and not (conf_dir() / f"{name}.yaml").exists():
        raise UsageError(
            f"--config-name: there is no {name}.yaml in our own conf/; one of yours goes with --config-dir."
        )
    with _hydra(options.config_dir) as hydra:
        _refuse_odd_words(command, overrides, hydra)
        with _translated(hydra, name, overrides):
            if _show(hydra, name, options):
                return
            multirun = options.multirun or "hydra.mode=MULTIRUN" in overrides
            cfg = _compose(hydra, name, overrides, RunMode.MULTIRUN if multirun else RunMode.RUN)
            multirun = multirun or cfg.hydra.mode == RunMode.MULTIRUN
            _refuse_hidden_files([*([options.config_dir] if options.config_dir else []), *cfg.hydra.searchpath])
            if multirun:
                check_sweep(cfg)
                _refuse_unusable(str(cfg.hydra.sweep.dir), "hydra.sweep.dir")
                run_sweep(hydra, Asked(name, options.config_dir, overrides), cfg, check, task)
                return
        check(cfg)
        _refuse_unusable(str(cfg.hydra.run.dir), "hydra.run.dir")
        _run_once(hydra, name, cfg, task)


def compose(command: str = "train", overrides: list[str] | None = None, config_dir: str | None = None) -> DictConfig:
    """The configuration of `pggrpo <command> <overrides>`, from Python. Raises ConfigError or UsageError."""
    return compose_with_place(command, overrides, config_dir)[0]


def compose_with_place(
    command: str = "train", overrides: list[str] | None = None, config_dir: str | None = None
) -> tuple[DictConfig, Path]:
    """The same with the directory that such a run would be written to; it is not made."""
    overrides = [_settable(word) for word in overrides or []]
    with _hydra(config_dir) as hydra:
        _refuse_odd_words(command, overrides, hydra)
        with _translated(hydra, command, overrides):
            cfg = _compose(hydra, command, overrides, RunMode.RUN)
            _refuse_hidden_files([*([config_dir] if config_dir else []), *cfg.hydra.searchpath])
            place = Path(str(cfg.hydra.run.dir))
            return OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"]), place


def shown(command: str, overrides: list[str], config_dir: str | None = None) -> str:
    """The same as text: YAML with the comments of its files. Raises ConfigError or UsageError."""
    overrides = [_settable(word) for word in overrides]
    with _hydra(config_dir) as hydra:
        _refuse_odd_words(command, overrides, hydra)
        with _translated(hydra, command, overrides):
            return commented_config(hydra, command, overrides)


def _settable(word: str) -> str:
    """Keys that hold without being in a file can be given without Hydra's ++: those of every reward
    (`reward.mine.timeout_s=5`), of every source of a mixture (`data.sources.mine.prompt_suffix=…`), its weights, and
    columns (`data.where.level=3`)."""
    parts = word.partition("=")[0].split(".")
    of_node = len(parts) > 2 and parts[0] in ("reward", "data") and parts[-1] in node_keys(".".join(parts[:-1]))
    is_weight = len(parts) == 3 and parts[:2] == ["data", "weights"]
    below_a_key = parts[0] == "data" and bool({"where", "columns", "keep"} & set(parts[1:-1]))
    return f"++{word}" if of_node or is_weight or below_a_key else word


def _parse(command: str, arguments: list[str]) -> argparse.Namespace:
    parser = get_args_parser()
    parser.prog = f"pggrpo {command}"

    def refuse(message: str) -> NoReturn:
        known = [option.lstrip("-") for action in parser._actions for option in action.option_strings]
        unknown = message.partition("unrecognized arguments: ")[2].split(" ")[0].partition("=")[0].lstrip("-")
        group = unknown.partition(".")[0]
        if group in (*SINGLE_GROUPS, *NAMED_GROUPS, *SECTIONS):
            raise UsageError(f"pggrpo {command}: keys are written without dashes: {unknown}=VALUE.")
        meant = did_you_mean(unknown, known).replace("mean ", "mean --") if unknown else ""
        raise UsageError(f"pggrpo {command}: {message}.{meant} See pggrpo {command} --help.")

    parser.error = refuse
    options = parser.parse_intermixed_args(arguments)
    if options.config_path is not None:
        raise UsageError("--config-path would replace our own configuration; to add to it use --config-dir DIR.")
    if options.experimental_rerun is not None:
        raise UsageError("--experimental-rerun would load a pickle; to go on with a run: pggrpo resume RUN.")
    if options.shell_completion:
        raise UsageError(
            '-sc is Hydra\'s own completion, which knows no commands. Ours: eval "$(pggrpo completion bash)"; pggrpo '
            "completion --help has zsh and fish."
        )
    if options.resolve and options.cfg is None and not options.help:
        raise UsageError("--resolve goes with --cfg or --help.")
    asked = [options.run, options.cfg is not None, options.multirun, options.info is not None]
    if sum(asked) > 1:
        raise UsageError("only one of --run, --multirun, --cfg and --info can be asked for.")
    return options


@contextmanager
def _hydra(config_dir: str | None) -> Iterator[Hydra]:
    """Hydra with our conf/ (and `config_dir` before it) on its search path."""
    hydra_version.setbase("1.3")
    register()
    search_path = create_config_search_path(str(conf_dir()))
    folders = [os.getcwd()]
    if config_dir is not None:
        folder = os.path.abspath(config_dir)
        if not os.path.isdir(folder):
            raise ConfigError(f"`--config-dir`: there is no folder {folder}. Give the folder that holds your groups.")
        search_path.prepend(provider="command-line", path=f"file://{folder}", anchor=SearchPathQuery(provider="schema"))
        folders.append(folder)
    # A user's own class lies in a file of theirs; last, so that no such file hides an installed module.
    sys.path += [folder for folder in folders if folder not in sys.path]
    former, its_config = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
    GlobalHydra.instance().clear()
    try:
        yield Hydra.create_main_hydra2(task_name="pggrpo", config_search_path=search_path)
    finally:
        GlobalHydra.instance().clear()
        GlobalHydra.instance().hydra = former
        HydraConfig.instance().cfg = its_config  # else a later pggrpo_cli.train would lie where this one's run does


@contextmanager
def _translated(hydra: Hydra, name: str, overrides: list[str]) -> Iterator[None]:
    """Hydra's errors as ours; a search path that is not there is one too."""
    again = partial(_compose, hydra, name, run_mode=RunMode.MULTIRUN)
    with hydra_errors(overrides, partial(_groups, hydra), partial(_options, hydra), again), warnings.catch_warnings():
        warnings.filterwarnings("error", message=r"(?s).*is not\s+available", category=UserWarning)
        yield


def _compose(hydra: Hydra, name: str, overrides: list[str], run_mode: RunMode) -> DictConfig:
    return hydra.compose_config(
        config_name=name, overrides=list(overrides), run_mode=run_mode, with_log_configuration=False
    )


def _groups(hydra: Hydra) -> list[str]:
    return [group for group in hydra.list_all_config_groups() if group.partition("/")[0] != "hydra"]


def _options(hydra: Hydra, group: str) -> list[str]:
    return list(hydra.config_loader.get_group_options(group, ObjectType.CONFIG))


def _refuse_odd_words(command: str, overrides: list[str], hydra: Hydra) -> None:
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


def _refuse_hidden_files(folders: list[str]) -> None:
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


def _show(hydra: Hydra, name: str, options: argparse.Namespace) -> bool:
    """What an option asks to be shown; whether there was one."""
    parser = get_args_parser()
    if options.help:
        print(help_page(hydra, name, options))
    elif options.hydra_help:
        options.overrides = [word for word in options.overrides if word.lstrip("+~").startswith("hydra")]
        hydra.hydra_help(config_name=name, args_parser=parser, args=options)
    elif options.cfg:
        shown: dict[str, Any] = {"cfg_type": options.cfg, "package": options.package, "resolve": options.resolve}
        hydra.show_cfg(config_name=name, overrides=options.overrides, **shown)
    elif options.info is not None:
        hydra.show_info(options.info, config_name=name, overrides=options.overrides)
    else:
        return False
    return True


def _refuse_unusable(run_dir: str, key: str) -> None:
    """Raises ConfigError for a directory that cannot be made or written."""
    if not run_dir.strip():
        raise ConfigError(f"`{key}`: is empty. Give a folder, or leave it out: outputs/… is the default.")
    path = Path(run_dir).absolute()
    existing = next(one for one in (path, *path.parents) if one.exists())
    if not existing.is_dir():
        raise ConfigError(f"`{key}`: {existing} is a file, so {run_dir} cannot be a folder. Give another one.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError(f"`{key}`: {existing} cannot be written to. Give another folder.")


def _run_once(hydra: Hydra, name: str, cfg: DictConfig, task: Task) -> None:
    """Hydra.run with a configuration that is composed already, and without its words on an error."""
    cfg.hydra.mode = RunMode.RUN
    callbacks = Callbacks(cfg)
    callbacks.on_run_start(config=cfg, config_name=name)
    try:
        job = run_job(
            hydra_context=HydraContext(config_loader=hydra.config_loader, callbacks=callbacks),
            task_function=task,
            config=cfg,
            job_dir_key="hydra.run.dir",
            job_subdir_key=None,
        )
    except OSError as error:  # of making the directory: what the task raises comes back in the job
        raise ConfigError(f"`hydra.run.dir`: {cfg.hydra.run.dir} cannot be made: {error}. Give another one.") from error
    callbacks.on_run_end(config=cfg, config_name=name, job_return=job)
    if job.status is JobStatus.FAILED:
        raise job._return_value
