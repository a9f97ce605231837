"""What a sweep that is read back from disk may not run unasked: its folder may come from anywhere."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from pggrpo_cli import run_directory as runs
from pggrpo_cli.config import plain
from pggrpo_cli.errors import ConfigError
from pggrpo_cli.run_overrides import parse_overrides, refuse_targets
from pggrpo_cli.sweep.record import Record

HYDRAS = ("hydra_plugins", "hydra._internal", "optuna.samplers", "pggrpo_cli.sweep")
"""Where the launchers, sweepers and samplers come from that may stand in Hydra's own node."""
NAMES_CODE = ("_target_", "custom_search_space", "()", "class")
RUNS_COMMANDS = ("hydra.job.env_set", "hydra.launcher.setup", "hydra.launcher.additional_parameters")


def resume_command(record: Record) -> str:
    """What to type to go on with a sweep, with what a configuration read from disk may not run unasked."""
    from pggrpo_cli.check import foreign_nodes

    found = (node.target for job in record.jobs.values() for node in foreign_nodes(job.config))
    targets = ",".join(dict.fromkeys(found))
    return _command(record.path) + (f" security.allow_targets=[{targets}]" if targets else "")


def _command(folder: Path) -> str:
    return shlex.join(["pggrpo", "sweep", "resume", str(runs.shown(folder))])


class Guard:
    """Raises ConfigError for what only words that are typed now could allow."""

    def __init__(self, folder: Path, typed: Sequence[str]) -> None:
        found = parse_overrides([word for word in typed if word.startswith("security.allow_targets=")])
        self._allowed = found.get("security.allow_targets", [])
        if not (isinstance(self._allowed, list) and all(isinstance(one, str) for one in self._allowed)):
            raise ConfigError(
                f"`security.allow_targets`: {self._allowed!r} is not a list of text; write "
                "security.allow_targets=[first,second]."
            )
        self._typed = typed
        self._command = _command(folder)

    def sweep(self, cfg: DictConfig) -> None:
        """Hydra's own node: launcher, sweeper, callbacks, variables of the jobs."""
        for key, target in _names_of_code(OmegaConf.to_container(cfg.hydra, resolve=False), "hydra"):
            if not runs.may_change(target, (*HYDRAS, *self._allowed)):
                raise ConfigError(
                    f"`{key}`: this sweep uses {target}, and what is read from disk may not use it unasked. If you trust "
                    f"this sweep: {self._command} security.allow_targets=[{','.join([*self._allowed, target])}]"
                )
        for key in RUNS_COMMANDS:
            if OmegaConf.select(cfg, key) and not any(word.lstrip("+~").startswith(key) for word in self._typed):
                raise ConfigError(
                    f"`{key}`: this sweep sets it, and what is read from disk may not do so unasked. If you trust this "
                    f"sweep, type it once more: {self._command} {key}=…"
                )

    def job(self, cfg: DictConfig) -> None:
        try:
            refuse_targets(plain(cfg), self._allowed, typed=())
        except ConfigError as error:
            if "security.allow_targets=" in str(error):
                said, _, targets = str(error).rpartition("security.allow_targets=")
                said = said.replace("this run", "this sweep")
                error.args = (f"{said}security.allow_targets={targets} The command: {self._command} with that.",)
            raise


def _names_of_code(node: Any, path: str) -> Iterator[tuple[str, str]]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        if key in NAMES_CODE and isinstance(value, str):
            yield f"{path}.{key}", value
        yield from _names_of_code(value, f"{path}.{key}")
