"""A command that Hydra composes: its options, what is checked before a run directory is made, one run or a sweep.

hydra.main makes the run directory before anything of ours sees the configuration, and ends the process in its own way.
So this is hydra.main's own sequence (_run_hydra in hydra/_internal/utils.py of Hydra 1.3) with our checks in between.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from hydra._internal.callbacks import Callbacks
from hydra._internal.hydra import Hydra
from hydra._internal.utils import get_args_parser
from hydra.core.utils import JobStatus, run_job
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig

from pggrpo_cli import __version__
from pggrpo_cli.commented_config import help_page
from pggrpo_cli.composing import (
    composed,
    find_their_modules,
    hydra_with,
    refuse_hidden_files,
    refuse_odd_words,
    settable,
    translated,
)
from pggrpo_cli.config import NAMED_GROUPS, SECTIONS, SINGLE_GROUPS, conf_dir
from pggrpo_cli.errors import ConfigError, UsageError
from pggrpo_cli.suggestions import did_you_mean
from pggrpo_cli.warn import warn

if TYPE_CHECKING:
    from pggrpo_cli.sweep.trust import Guard

Check = Callable[[DictConfig], object]
Task = Callable[[DictConfig], "float | None"]


def start(command: str, arguments: list[str], check: Check, task: Task, guard: Guard | None = None) -> None:
    """Runs `pggrpo <command> <arguments>`: shows what an option asks for, or checks and then runs `task`.

    `task` runs in a run directory of its own, hydra.runtime.output_dir; under -m once for each job, where the error
    of one does not end the others. A `guard` looks on whatever Hydra composes, if the arguments were read from disk; then the
    folders of a user's own modules are on sys.path only once it has passed, and only if it allows code of theirs.
    Raises PggrpoError.
    """
    if "--version" in arguments:
        print(f"pggrpo {__version__}")
        return
    options = _parse(command, arguments)
    options.overrides = [settable(word) for word in options.overrides]
    overrides, name = options.overrides, options.config_name or command
    if options.config_dir is None and not (conf_dir() / f"{name}.yaml").exists():
        raise UsageError(
            f"--config-name: there is no {name}.yaml in our own conf/; one of yours goes with --config-dir."
        )
    with hydra_with(options.config_dir, their_modules=guard is None) as hydra:
        if guard is not None:
            from pggrpo_cli.sweep.trust import GuardedLoader

            hydra.config_loader = GuardedLoader(guard, hydra.config_loader)
        refuse_odd_words(command, overrides, hydra)
        with translated(hydra, name, overrides):
            if _show(hydra, name, options):
                return
            multirun = options.multirun or "hydra.mode=MULTIRUN" in overrides
            cfg = composed(hydra, name, overrides, RunMode.MULTIRUN if multirun else RunMode.RUN)
            multirun = multirun or cfg.hydra.mode == RunMode.MULTIRUN
            refuse_hidden_files([*([options.config_dir] if options.config_dir else []), *cfg.hydra.searchpath])
            if multirun:
                from pggrpo_cli.sweep.run import Asked, run_sweep

                if guard is not None and guard.allowed:
                    find_their_modules(options.config_dir)
                _refuse_unusable(str(cfg.hydra.sweep.dir), "hydra.sweep.dir")
                asked = Asked(name, options.config_dir, overrides, None if guard is None else guard.typed)
                run_sweep(hydra, asked, cfg, check, task)
                return
        check(cfg)
        _refuse_unusable(str(cfg.hydra.run.dir), "hydra.run.dir")
        if any(word.lstrip("+").startswith("sweep.") for word in overrides):
            warn(
                "`sweep`: its keys are for several runs, and without -m this is one: pggrpo train -m loss=grpo,pg_grpo …"
            )
        _run_once(hydra, name, cfg, task)


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
