"""Files and folders that a configuration names, looked for before anything heavy loads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pggrpo_cli.errors import ConfigError
from pggrpo_cli.user_file import lacks_function

LINES_IN = ("path", "eval_path")
READERS = ("pggrpo_cli.data.jsonl.Jsonl", "pggrpo_cli.data.preference_jsonl.PreferenceJsonl")
"""Classes of ours whose keys LINES_IN name JSON-lines files."""
CODE_IN = "pggrpo_cli.reward.python.Python"
"""The class of ours whose key `path` names a Python file; so does data.keep."""
MODELS_IN = {
    "pggrpo_cli.model.hf.Hf": ("path",),
    "pggrpo_cli.reward.reward_model.RewardModel": ("path",),
    "pggrpo_cli.reward.implicit.Implicit": ("path", "reference_path"),
}
"""Classes of ours and their keys that name a model: a folder, a .gguf file or a hub id."""
MADE = {
    "outputs/arithmetic_preferences.jsonl": "make preferences",
    "outputs/arithmetic_held_out.jsonl": "make preferences",
}
"""Files that an experiment of ours reads, and what writes them in a checkout."""


def existing_file(path: str, key: str) -> Path:
    """Raises ConfigError if there is no such file."""
    file = Path(path).expanduser()
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "does not exist"
        if file.exists() and not file.is_dir():
            what = "is a pipe or a device, which can be read once only"
        made = f" In a checkout of pggrpo, `{MADE[path]}` writes it." if path in MADE and not file.exists() else ""
        raise ConfigError(f"`{key}`: {path} {what}; give a JSON-lines file (one JSON object a line).{made}")
    return file


def check_files(values: Mapping[str, Any]) -> None:
    """All that a run needs. `values` have passed check.check_values. Raises ConfigError."""
    check_rows(values)
    problems = list(_other_problems(values))
    if problems:
        raise ConfigError("\n".join(problems))


def check_rows(values: Mapping[str, Any]) -> None:
    """Those of the data set alone."""
    node = values["data"]
    sources = {f"data.sources.{name}": one for name, one in (node.get("sources") or {}).items()}
    for path, one in {"data": node, **sources}.items():
        for name in LINES_IN if one["_target_"] in READERS else ():
            if one[name] is not None:
                existing_file(one[name], f"{path}.{name}")


def _other_problems(values: Mapping[str, Any]) -> Iterator[str]:
    nodes = {"model": values["model"], **{f"reward.{name}": one for name, one in values["reward"].items()}}
    for path, node in nodes.items():
        if node["_target_"] == CODE_IN:
            yield from _no_code(path, node["path"], node["name"])
        for name in MODELS_IN.get(node["_target_"], ()):
            yield from _no_model(f"{path}.{name}", node[name])
    yield from _no_model("reference.path", values["reference"]["path"])
    keep = values["data"].get("keep") or {}
    yield from _no_code("data.keep", keep.get("path"), keep.get("name"))


def _no_code(key: str, path: str | None, name: str | None) -> Iterator[str]:
    if path is None:
        return
    file = Path(path).expanduser()
    if not file.is_file():
        yield f"`{key}.path`: there is no file {path} (looked in {Path.cwd()}); give a Python file."
    elif name is not None and (wrong := lacks_function(file, name)):
        yield f"`{key}.{'name' if 'has no function' in wrong else 'path'}`: {wrong}"


def _no_model(key: str, path: str | None) -> Iterator[str]:
    """What is meant as a folder or file here; a hub id shows only when it is asked for."""
    if path is not None and is_local(path) and not Path(path).expanduser().exists():
        what = "file" if path.endswith(".gguf") else "folder"
        yield f"`{key}`: there is no {what} {Path(path)}. Give a model folder, a .gguf file or a hub id."


def is_local(path: str) -> bool:
    """Whether `path` means a folder or file here, and no hub id."""
    return path.startswith((".", "/", "~")) or path.endswith(".gguf") or Path(path).expanduser().exists()
