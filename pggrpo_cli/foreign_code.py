"""Classes of ours through which a configuration reaches further than our own code: files, modules, secrets, other hosts."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from pggrpo_cli.server_keys import ASK_A_SERVER

RUN_A_FILE = ("pggrpo_cli.reward.python.Python", "pggrpo_cli.filters.Sieve")
"""The second stands for `keep` of a data node."""
IMPORT_A_MODULE = ("pggrpo_cli.data.verifiers.Verifiers", "pggrpo_cli.reward.verifiers.Verifiers")

SENDS_TO = {"pggrpo_cli.logger.mlflow.Mlflow": "tracking_uri", "pggrpo_cli.logger.trackio.Trackio": "space_id"}
"""Loggers, and the key that says where the run's metrics, configuration and completions go."""


def reaches_out(target: str, arguments: Mapping[str, Any]) -> bool:
    """Whether a node of this class of ours, with these keys, may not be built from disk unasked.

    A server counts that is sent an environment variable, or that is not on this machine: what it is sent are prompts,
    completions and, by a judge's template, files.
    """
    if target in ASK_A_SERVER:
        return bool(_variables(arguments)) or not _is_here(arguments.get("url"))
    if target in SENDS_TO:
        return not _stays(arguments.get(SENDS_TO[target]))
    return target in RUN_A_FILE or target in IMPORT_A_MODULE


def in_words(target: str, arguments: Mapping[str, Any]) -> str:
    """What the node uses, for a message."""
    if target in RUN_A_FILE:
        return f"the file {arguments.get('path')}"
    if target in IMPORT_A_MODULE:
        return f"the code of the environment {arguments.get('environment')} ({target})"
    if target in ASK_A_SERVER:
        names = _variables(arguments)
        what = "prompts and completions" if not names else f"the environment variable {' and '.join(names)}"
        return f"the server {_host(arguments.get('url')) or arguments.get('url')}, which is sent {what} ({target})"
    if target in SENDS_TO:
        return f"{arguments.get(SENDS_TO[target])}, which is sent metrics, configuration and completions ({target})"
    return target


def _stays(place: Any) -> bool:
    """Whether what is sent there stays on this machine."""
    if place is None or (isinstance(place, str) and place.startswith(("sqlite:///", "file:///"))):
        return True
    return _is_here(place)


def _variables(arguments: Mapping[str, Any]) -> list[str]:
    """Names of environment variables whose values go into headers."""
    headers = arguments.get("headers_env")
    named = [arguments.get("key_env"), *(headers.values() if isinstance(headers, Mapping) else [headers or None])]
    return [str(one) for one in dict.fromkeys(map(str, filter(None, named)))]


def _is_here(url: Any) -> bool:
    host = _host(url)
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _host(url: Any) -> str:
    """Empty if it is no address."""
    try:
        return (urlsplit(url).hostname or "") if isinstance(url, str) else ""
    except ValueError:
        return ""
