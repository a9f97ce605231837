"""Configurations side by side: against the defaults, and between runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pggrpo_cli.config import NAMED_GROUPS, SINGLE_GROUPS, conf_dir
from pggrpo_cli.errors import PggrpoError
from pggrpo_cli.private_values import public_override, public_setting

ABSENT = "–"


class Difference(NamedTuple):
    """A dotted key and its value in each configuration compared, as text."""

    key: str
    values: tuple[str, ...]


def differences(configs: Sequence[Mapping[str, Any]]) -> list[Difference]:
    """Keys whose values are not the same in all, in the order of the first that has them."""
    flat = [flattened(config) for config in configs]
    keys = dict.fromkeys(key for one in flat for key in one)
    found = (Difference(key, tuple(one.get(key, ABSENT) for one in flat)) for key in keys)
    return [one for one in found if len(set(one.values)) > 1]


def flattened(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Dotted keys → values as JSON; text without quotes."""
    flat: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = (
                value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
            )
    return flat


def public_differences(found: Sequence[Difference]) -> list[Difference]:
    """`found` as strangers may see it. What differs is told before: two values may look alike once they are cut."""
    return [Difference(one.key, tuple(public_setting(one.key, value) for value in one.values)) for one in found]


def from_defaults(config: Mapping[str, Any]) -> tuple[list[str], list[Difference]]:
    """(what was chosen, as group=option; keys that differ from what those options bring, with the default first).

    `choices` are the options of conf/ that differ from conf/train.yaml's. Raises PggrpoError if conf/ cannot be composed.
    """
    from pggrpo_cli.composing import compose
    from pggrpo_cli.config import plain

    usual = plain(compose())
    choices = [*_single_choices(config, usual), *_named_choices(config, usual)]
    try:
        chosen = plain(compose("train", choices)) if choices else usual
    except PggrpoError:  # an option of this name now needs what it did not need then
        chosen = usual
    found = [one for one in differences([chosen, config]) if not one.key.startswith(("resume.", "sweep."))]
    return choices, found


def target_name(target: str) -> str:
    """`pggrpo_cli.loss.pg_grpo.PgGrpo` → pg_grpo; of others the class."""
    parts = target.split(".")
    return parts[-2] if target.startswith("pggrpo_cli.") and len(parts) > 2 else parts[-1]


def _single_choices(config: Mapping[str, Any], usual: Mapping[str, Any]) -> list[str]:
    found = []
    for group in SINGLE_GROUPS:
        node = config.get(group)
        if isinstance(node, Mapping) and node.get("_target_") != usual.get(group, {}).get("_target_"):
            option = _likeliest_option(group, node)
            found += [f"{group}={option}"] if option else []
    return found


def _named_choices(config: Mapping[str, Any], usual: Mapping[str, Any]) -> list[str]:
    found = []
    for group in NAMED_GROUPS:
        node = config.get(group)
        if isinstance(node, Mapping) and list(node) != list(usual.get(group, {})):
            known = {file.stem for file in (conf_dir() / group).glob("*.yaml")}
            found.append(f"{group}=[{','.join(name for name in map(str, node) if name in known)}]")
    return found


def _likeliest_option(group: str, node: Mapping[str, Any]) -> str | None:
    """The file of conf/<group> with this `_target_` from whose values the fewest differ."""
    from omegaconf import OmegaConf

    distances: dict[str, int] = {}
    flat = flattened(node)
    for file in sorted((conf_dir() / group).glob("*.yaml")):
        values = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
        option = values.get(group, values) if isinstance(values, dict) else {}
        if isinstance(option, dict) and option.get("_target_") == node.get("_target_"):
            wanted = flattened({str(key): value for key, value in option.items() if key != "defaults"})
            distances[file.stem] = sum(flat.get(key) != value for key, value in wanted.items())
    return min(distances, key=lambda name: distances[name]) if distances else None


def shown_command(argv: Any) -> str:
    """What was typed, the program without its folder, and without what private_values hides."""
    if not isinstance(argv, list) or not argv:
        return ""
    import shlex

    program = Path(str(argv[0])).name
    return shlex.join(
        ["pggrpo" if program == "__main__.py" else program, *(public_override(str(word)) for word in argv[1:])]
    )
