"""Files of rows that a configuration names, looked for before anything heavy loads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pggrpo_cli.errors import ConfigError

LINES_IN = ("path", "eval_path")
READERS = ("pggrpo_cli.data.jsonl.Jsonl", "pggrpo_cli.data.preference_jsonl.PreferenceJsonl")
"""Classes of ours whose keys LINES_IN name JSON-lines files."""


def existing_file(path: str, key: str) -> Path:
    """Raises ConfigError if there is no such file."""
    file = Path(path).expanduser()
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "does not exist"
        if file.exists() and not file.is_dir():
            what = "is a pipe or a device, which can be read once only"
        raise ConfigError(f"`{key}`: {path} {what}; give a JSON-lines file (one JSON object a line).")
    return file


def check_files(values: Mapping[str, Any]) -> None:
    """`values` have passed check.check_values. Raises ConfigError."""
    node = values["data"]
    for name in LINES_IN if node["_target_"] in READERS else ():
        if node[name] is not None:
            existing_file(node[name], f"data.{name}")
