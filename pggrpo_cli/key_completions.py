"""What may be typed as group=option or key=value, given what stands before it: `loss=grpo loss.b`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pggrpo_cli.class_source import NoSuchTarget, is_ours, read_parameters
from pggrpo_cli.completions import Candidate, paths, runs
from pggrpo_cli.conf_files import (
    default_options,
    defaults_of,
    first_comment,
    group_comments,
    groups,
    key_comments,
    package_of,
)
from pggrpo_cli.config import MAPPING_KEYS, NODE_SETTINGS, SECTIONS, conf_dir, key_of
from pggrpo_cli.field_types import ANYTHING, FieldType

PATH_KEYS = ("path", "eval_path", "chat_template", "dir", "from")
HYDRA_KEYS = {
    "hydra.run.dir": "the run's directory",
    "hydra.sweep.dir": "of a sweep",
    "hydra.searchpath": "further folders",
    "hydra/launcher": "how the jobs of a sweep run: processes, basic, slurm, joblib",
    "hydra/sweeper": "which jobs a sweep has: basic, optuna",
}
DEVICES = ("auto", "cpu", "cuda", "cuda:0")
_PLAIN = re.compile(r"[\w.:/+-]+")
"""Values that a shell leaves as they are."""
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Configuration:
    """What is composed, as far as its files tell: a tree of values, and the comments of its keys."""

    tree: dict[str, Any]
    comments: dict[str, str]
    files: dict[str, dict[str, Path]]
    """{group: {option: file}}"""


def overrides(name: str, words: Sequence[str], folders: Sequence[Path], word: str) -> list[Candidate]:
    """`name`: of the primary configuration. `words` stand before the one that is typed."""
    prefix = word[: len(word) - len(word.lstrip("+~"))]
    key, equals, value = word[len(prefix) :].partition("=")
    files = groups(folders)
    if equals and key in files:
        return [(f"{prefix}{one}", what) for one, what in _options(key, value, files[key])]
    found = _configuration(name, words, files)
    typed = _values(found, key, value) if equals else _keys(found, key)
    return [(f"{prefix}{one}", what) for one, what in typed]


def known_keys(name: str, words: Sequence[str]) -> list[str]:
    """The dotted keys of what `words` compose, as far as our own files tell, without those of whole sections."""
    return list(_leaves(_configuration(name, words, groups()).tree, ""))


def _leaves(node: Mapping[str, Any], prefix: str) -> Iterable[str]:
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        elif not str(key).startswith("_"):
            yield f"{prefix}{key}"


def _options(group: str, value: str, files: Mapping[str, Path]) -> Iterable[Candidate]:
    """In a list, and in a sweep, behind the last comma."""
    done = re.match(r"(.*[\[,])?", value)
    head = done[0] if done else ""
    taken = set(re.split(r"[\[,]", head))
    for name, file in files.items():
        if name.startswith(value[len(head) :]) and name not in taken:
            yield f"{group}={head}{name}", first_comment(file)


def _keys(found: _Configuration, word: str) -> Iterable[Candidate]:
    parent, dot, start = word.rpartition(".")
    if not dot:
        said = group_comments()
        yield from ((f"{group}=", said.get(group, "")) for group in found.files if group.startswith(start))
        yield from ((f"{key}=", what) for key, what in HYDRA_KEYS.items() if start and key.startswith(start))
    if word.startswith("hydra."):
        yield from ((f"{key}=", what) for key, what in HYDRA_KEYS.items() if key.startswith(word))
    node = _at(found.tree, parent)
    for key, value in (node if isinstance(node, Mapping) else {}).items():
        if str(key).startswith(start) and not str(key).startswith("_"):
            path = f"{parent}{dot}{key}"
            goes_on = isinstance(value, Mapping) and value
            yield f"{path}{'.' if goes_on else '='}", found.comments.get(path, "")


def _values(found: _Configuration, key: str, value: str) -> Iterable[Candidate]:
    if key == "resume.from":
        yield from ((f"{key}={one}", "") for one in ("auto", "null") if one.startswith(value))
        yield from ((f"{key}={one}", "") for one, _ in runs(value))
        return
    if key.rpartition(".")[2] in PATH_KEYS:
        yield from ((f"{key}={one}", "") for one, _ in paths(value))
        return
    kind = _type(found.tree, key)
    offered = [str(one) for one in kind.choices]
    offered += ["true", "false"] if "bool" in kind.kinds else []
    offered += list(DEVICES) if key.rpartition(".")[2] == "device" else []
    now = _at(found.tree, key)
    if isinstance(now, (str, int, float)) and not isinstance(now, bool) and _PLAIN.fullmatch(str(now)):
        offered.append(str(now))
    offered += ["null"] if kind.optional else []
    for one in dict.fromkeys(offered):
        if one.startswith(value):
            yield f"{key}={one}", "as it is now" if one == str(now) else ""


def _type(tree: Mapping[str, Any], key: str) -> FieldType:
    """What the class that describes a key says of it."""
    parent, _, last = key.rpartition(".")
    node = _at(tree, parent)
    group = parent.partition(".")[0]
    if parent in SECTIONS:
        target = f"pggrpo_cli.config.{SECTIONS[parent].__name__}"
    elif last in MAPPING_KEYS.get(group, ()) or parent == "scoring.each":
        target = NODE_SETTINGS[group if group in NODE_SETTINGS else "reward"]
    elif isinstance(node, Mapping) and is_ours(str(node.get("_target_", ""))):
        target = str(node["_target_"])
    else:
        return ANYTHING
    try:
        by_name = {key_of(name): one.type for name, one in read_parameters(target).by_name.items()}
    except NoSuchTarget:
        return ANYTHING
    return by_name.get(last, ANYTHING)


def _configuration(name: str, words: Sequence[str], files: dict[str, dict[str, Path]]) -> _Configuration:
    primary = conf_dir() / f"{name}.yaml"
    tree = {key: value for key, value in _load(primary).items() if key not in ("defaults", "hydra")}
    comments = key_comments(primary)
    for group, options in _chosen(name, words, files).items():
        for option in options:
            file = files.get(group, {}).get(option)
            if file is not None:
                package = package_of(file)
                values = {key: value for key, value in _load(file).items() if key != "defaults"}
                _merge(tree, {package: values} if package else values)
                comments |= key_comments(file, package)
    rewards, each = tree.get("reward"), (tree.get("scoring") or {}).get("each") or {}
    for reward, node in (rewards if isinstance(rewards, Mapping) else {}).items():
        tree["reward"][reward] = {**each, **node}
        comments = {f"reward.{reward}.{key}": comments.get(f"scoring.each.{key}", "") for key in each} | comments
    return _Configuration(tree=tree, comments=comments, files=files)


def _chosen(name: str, words: Sequence[str], files: Mapping[str, Mapping[str, Path]]) -> dict[str, list[str]]:
    """{group: options}: the defaults, what chosen files change in them, what was typed. In a sweep, the first one."""
    typed: dict[str, list[str]] = {}
    for word in words:
        key, equals, value = word.lstrip("+").partition("=")
        if equals and key in files:
            typed[key] = value.strip("[]").split(",") if value.startswith("[") else value.split(",")[:1]
    brought: dict[str, list[str]] = {}
    for group, options in typed.items():
        for option in options:
            if option in files[group]:
                brought |= defaults_of(files[group][option])
    return default_options(name) | brought | typed


def _load(file: Path) -> dict[str, Any]:
    found = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)
    return found if isinstance(found, dict) else {}


def _merge(into: dict[str, Any], values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, Mapping) else value


def _at(tree: Any, path: str) -> Any:
    for part in path.split(".") if path else ():
        tree = tree.get(part) if isinstance(tree, Mapping) else None
    return tree
