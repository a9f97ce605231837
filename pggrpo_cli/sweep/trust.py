"""What a sweep that is read back from disk may not run unasked: its folder may come from anywhere."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from pggrpo_cli import run_directory as runs
from pggrpo_cli.config import plain
from pggrpo_cli.errors import ConfigError
from pggrpo_cli.run_overrides import parse_overrides, refuse_targets
from pggrpo_cli.secrets_in_values import texts
from pggrpo_cli.sweep.record import Record

HYDRAS = ("hydra_plugins", "hydra._internal", "optuna.samplers", "pggrpo_cli.sweep")
"""Where the launchers, sweepers and samplers come from that may stand in Hydra's own node."""
NAMES_CODE = ("_target_", "custom_search_space", "()", "class")
RESOLVERS = ("now", "run_suffix", "hydra")
"""Which our own conf/ and Hydra's use. Others look into the environment, or make nodes that nobody has seen."""
INTERPOLATION = re.compile(r"\$\{\s*([\w.\[\]-]*)\s*(.?)", re.DOTALL)
LAUNCHER = (
    *(
        "_target_",
        "timeout_min",
        "cpus_per_task",
        "gpus_per_node",
        "tasks_per_node",
        "mem_gb",
        "nodes",
        "name",
        "partition",
    ),
    *(
        "stderr_to_stdout",
        "qos",
        "comment",
        "constraint",
        "exclude",
        "gres",
        "cpus_per_gpu",
        "gpus_per_task",
        "mem_per_gpu",
    ),
    *(
        "mem_per_cpu",
        "account",
        "signal_delay_s",
        "max_num_timeout",
        "array_parallelism",
        "n_jobs",
        "prefer",
        "require",
    ),
    *("verbose", "timeout", "batch_size", "max_nbytes", "mmap_mode"),
)
"""Keys of launchers that are numbers or words. Others are commands for the nodes (setup, srun_args), options of sbatch that run
some (additional_parameters), or folders that pickles are loaded from."""
LAUNCHER_DEFAULTS = {"submitit_folder": "${hydra.sweep.dir}/.submitit/%j", "pre_dispatch": "2*n_jobs"}
SEARCH_PATH = "hydra.searchpath"


def resume_command(record: Record) -> str:
    """What to type to go on with a sweep, with what a configuration read from disk may not run unasked."""
    from pggrpo_cli.check import foreign_nodes

    found = (node.target for job in record.jobs.values() for node in foreign_nodes(job.config))
    targets = ",".join(dict.fromkeys(found))
    return command_to_resume(record.path) + (f" security.allow_targets=[{targets}]" if targets else "")


def command_to_resume(folder: Path) -> str:
    return shlex.join(["pggrpo", "sweep", "resume", str(runs.shown(folder))])


class Guard:
    """Raises ConfigError for what only words that are typed now could allow."""

    def __init__(self, folder: Path, typed: Sequence[str]) -> None:
        found = parse_overrides([word for word in typed if word.startswith("security.allow_targets=")])
        self.allowed = found.get("security.allow_targets", [])
        if not (isinstance(self.allowed, list) and all(isinstance(one, str) for one in self.allowed)):
            raise ConfigError(
                f"`security.allow_targets`: {self.allowed!r} is not a list of text; write "
                "security.allow_targets=[first,second]."
            )
        self.typed = typed
        self._values = dict(_keys_and_values(typed))
        self._command = command_to_resume(folder)

    def words(self, recorded: Sequence[str]) -> list[str]:
        """Of the recorded words those that hold: what is typed now stands in the place of a search path (of two, Hydra would
        take the first) and of what looks something up (it would stay among Hydra's overrides)."""

        def replaced(word: str) -> bool:
            keys = dict(_keys_and_values([word])).keys() & self._values.keys()
            return bool(keys) and (SEARCH_PATH in keys or _looks_up(word))

        return [word for word in recorded if not replaced(word)]

    def sweep(self, cfg: DictConfig) -> None:
        """Of a sweep or a job, unresolved: Hydra's own node (launcher, sweeper, callbacks, variables of the jobs), and what any
        key looks up."""
        hydra = OmegaConf.to_container(cfg.hydra, resolve=False)
        assert isinstance(hydra, dict)
        for key, target in _names_of_code(hydra, "hydra"):
            if not runs.may_change(target, (*HYDRAS, *self.allowed)):
                raise ConfigError(
                    f"`{key}`: this sweep uses {target}, and what is read from disk may not use it unasked. If you trust "
                    f"this sweep: {self._command} security.allow_targets=[{','.join([*self.allowed, target])}]"
                )
        for key, value in _runs_commands(hydra):
            if str(self._values.get(key)) != str(value):
                word = shlex.quote(f"++{key}={value}")
                raise ConfigError(
                    f"`{key}`: this sweep sets it to {value!r}, and what is read from disk may not do so unasked. If you "
                    f"trust this sweep, type it once more: {self._command} {word}"
                )
        whole = OmegaConf.to_container(cfg, resolve=False)
        assert isinstance(whole, dict)
        del whole["hydra"]
        for key, text in (*texts(whole, ""), *texts(hydra, "hydra")):
            self._refuse_lookup(key, text)

    def _refuse_lookup(self, key: str, text: str) -> None:
        left = text
        if key.startswith(("hydra.overrides.", "hydra.job.override_dirname")):  # the words once more
            for word in sorted(self.typed, key=len, reverse=True):
                left = left.replace(word, "")
        if _looks_up(left) and text not in str(self._values.get(key.partition("[")[0], "")):
            raise ConfigError(
                f"`{key}`: this sweep looks something up, {text!r}, and what is read from disk may look into nothing but the "
                f"configuration itself. If you trust this sweep, type the value: {self._command} ++{key.partition('[')[0]}=VALUE"
            )

    def search_path(self, found: Any) -> None:
        """Folders and packages to read configurations from: a package is imported for it."""
        if found and found != self._values.get(SEARCH_PATH):
            raise ConfigError(
                f"`{SEARCH_PATH}`: this sweep reads configurations from {found}, and what is read from disk may not do so "
                f"unasked. If you trust this sweep, type it once more: {self._command} '{SEARCH_PATH}=[…]'"
            )

    def job(self, cfg: DictConfig) -> None:
        try:
            refuse_targets(plain(cfg), self.allowed, typed=())
        except ConfigError as error:
            if "security.allow_targets=" in str(error):
                said, _, targets = str(error).rpartition("security.allow_targets=")
                said = said.replace("this run", "this sweep")
                error.args = (f"{said}security.allow_targets={targets} The command: {self._command} with that.",)
            raise


class GuardedLoader(ConfigLoaderImpl):
    """Hydra's loader, which a Guard looks on: over the search path before anything on it is opened, since pkg:// imports, and
    over every configuration, a job's too, before anything in it is resolved or made. Launchers send it to their workers."""

    def __init__(self, guard: Guard, loader: ConfigLoaderImpl) -> None:
        super().__init__(config_search_path=loader.config_search_path)
        self._guard = guard

    def load_configuration(self, *args: Any, **kwargs: Any) -> DictConfig:
        cfg = super().load_configuration(*args, **kwargs)
        self._guard.sweep(cfg)
        return cfg

    def _process_config_searchpath(self, config_name: str | None, parsed_overrides: list[Override], repo: Any) -> None:
        words = [one.value() for one in parsed_overrides if one.get_key_element() == SEARCH_PATH]
        loaded = None if words or config_name is None else repo.load_config(config_path=config_name)
        if loaded is not None and OmegaConf.is_dict(loaded.config):
            written = OmegaConf.to_container(loaded.config, resolve=False)
            node = written.get("hydra") if isinstance(written, dict) else None
            found = node.get("searchpath") if isinstance(node, dict) else node
            words = [found] if found else []
        for found in words:
            self._guard.search_path(found)
        super()._process_config_searchpath(config_name, parsed_overrides, repo)


def _keys_and_values(words: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """What cannot be read says Hydra later."""
    for word in words:
        try:
            parsed = OverridesParser.create().parse_override(word)
        except HydraException:
            continue
        if not parsed.is_delete() and not parsed.is_sweep_override():
            yield parsed.get_key_element().lstrip("+"), parsed.value()


def _looks_up(text: str) -> bool:
    """Whether an interpolation in `text` is more than another key's value, or might be."""
    return any(
        following != "}" and not (following == ":" and name in RESOLVERS)
        for name, following in INTERPOLATION.findall(text)
    )


def _runs_commands(hydra: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    """Keys of Hydra's node that could make something run, or be sent somewhere."""
    for name, value in ((hydra.get("job") or {}).get("env_set") or {}).items():
        yield f"hydra.job.env_set.{name}", value
    for name, value in (hydra.get("launcher") or {}).items():
        of_lines = isinstance(value, str) and not value.isprintable()  # a further line of the script for sbatch
        known = (name in LAUNCHER and not isinstance(value, (dict, list))) or LAUNCHER_DEFAULTS.get(name) == value
        if value not in (None, [], {}) and (of_lines or not known):
            yield f"hydra.launcher.{name}", value
    storage = (hydra.get("sweeper") or {}).get("storage")
    if storage is not None and not str(storage).startswith("sqlite:///"):
        yield "hydra.sweeper.storage", storage
    for key, text in texts(hydra, "hydra"):
        if text.startswith("ext://") and text not in ("ext://sys.stdout", "ext://sys.stderr"):
            yield key, text  # logging imports it


def _names_of_code(node: Any, path: str) -> Iterator[tuple[str, str]]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        if key in NAMES_CODE and isinstance(value, str):
            yield f"{path}.{key}", value
        yield from _names_of_code(value, f"{path}.{key}")
