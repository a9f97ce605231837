"""Overrides of a configuration that is read back from a run, and what such a configuration may not run unasked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pggrpo_cli import run_directory as runs
from pggrpo_cli.errors import ConfigError, UsageError
from pggrpo_cli.secrets_in_values import texts
from pggrpo_cli.suggestions import did_you_mean


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """Hydra's grammar, of which key=value alone makes sense here."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import ValueType
    from hydra.errors import HydraException

    changes: dict[str, Any] = {}
    for word in overrides:
        try:
            parsed = OverridesParser.create().parse_override(word)
        except HydraException as error:
            what = str(error).splitlines()[0]
            raise UsageError(
                f"`{word}`: cannot be read as key=value: {what}. Write it like trainer.max_steps=100."
            ) from error
        if parsed.is_delete() or parsed.is_sweep_override() or parsed.value_type == ValueType.SIMPLE_CHOICE_SWEEP:
            raise UsageError(f"`{word}`: a run read back takes one value for a key, like trainer.max_steps=100.")
        changes[str(parsed.key_or_group)] = parsed.value()
    return changes


def set_key(config: dict[str, Any], key: str, value: Any) -> None:
    """Sets a key that is there; the groups stay as they are, except loggers, which may be chosen anew."""
    from pggrpo_cli.config import MAPPING_KEYS

    if key == "logger":
        config["logger"] = _loggers(value)
        return
    *path, last = key.split(".")
    node: Any = config
    for part in path:
        node = node.get(part) if isinstance(node, dict) else None
    of_every_reward = len(path) == 2 and path[0] == "reward" and last in MAPPING_KEYS["reward"]
    if not isinstance(node, dict) or (last not in node and not of_every_reward):
        from pggrpo_cli.hydra_errors import known_keys, no_such_key

        raise ConfigError(no_such_key(key, known_keys(config), ()))
    if isinstance(node.get(last), dict) and not isinstance(value, dict):
        raise ConfigError(f"`{key}`: holds keys of its own, {', '.join(node[last])}; give one of them a value.")
    if isinstance(node.get(last), float) and type(value) is int:
        value = float(value)
    node[last] = value


def _loggers(value: Any) -> dict[str, Any]:
    """The nodes of the named loggers from our own conf/logger."""
    from omegaconf import OmegaConf

    from pggrpo_cli.config import conf_dir

    files = {file.stem: file for file in (conf_dir() / "logger").glob("*.yaml")}
    chosen: dict[str, Any] = {}
    for name in value if isinstance(value, list) else [value]:
        if name not in files:
            meant, there = did_you_mean(str(name), files), ", ".join(sorted(files))
            raise ConfigError(f"`logger`: there is no logger={name}.{meant} There are: {there}.")
        nodes = OmegaConf.to_container(OmegaConf.load(files[name]), resolve=True)
        assert isinstance(nodes, dict)
        chosen |= {str(key): node for key, node in nodes.items()}
    return chosen


def refuse_targets(values: Mapping[str, Any], allow_targets: Sequence[str], typed: Sequence[str]) -> None:
    """Raises ConfigError for what foreign_nodes finds, unless it is below an allowed prefix or its key was typed; and for
    interpolations: Hydra resolves them when it makes a component, so that ${oc.create:…} would be a class unseen."""
    from pggrpo_cli.check import foreign_nodes, nodes
    from pggrpo_cli.foreign_code import in_words

    for node in nodes(values):
        for key, text in texts(node.arguments, node.path):
            if "${" in text:
                raise ConfigError(
                    f"`{key}`: holds an interpolation, ${{…}}; the configuration of a run holds plain values, and one read "
                    "from disk may not look anything up. Write the value itself."
                )
    wrong = [
        node
        for node in foreign_nodes(values)
        if not runs.may_change(node.target, tuple(allow_targets)) and node.key not in typed
    ]
    if wrong:
        what = ", ".join(dict.fromkeys(in_words(node.target, node.arguments) for node in wrong))
        raise ConfigError(
            f"`{wrong[0].key}`: this run uses {what}. That is not pggrpo's own, and a configuration read from "
            f"disk may not use it unasked. If you trust this run, add "
            f"security.allow_targets=[{','.join(dict.fromkeys(node.target for node in wrong))}]."
        )
