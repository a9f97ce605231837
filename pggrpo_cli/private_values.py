"""A configuration as strangers may see it: no folder of this machine, no secret."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

_SECRET_KEYS = re.compile(r"(^|_)(key|token|secret|password|passwd|credentials?|authorization)$", re.IGNORECASE)
_TOKENS = re.compile(r"\b(?:hf_|sk-|gh[pousr]_|github_pat_|xox[abprs]-|AKIA|glpat-)[A-Za-z0-9_-]{12,}")
"""Access tokens by the beginnings that their makers gave them."""
_LOGIN = re.compile(r"(?<=://)[^/\s@'\"]+@")
_PATH = re.compile(
    r"(?<![^\s=,:\[({'\"])(?!(?<=:)//)(?:file://)?(?:~[\w.-]*|\.\.|[A-Za-z]:(?=[\\/]))?(?:[\\/]+[^\\/\s,'\"\])}]+){2,}[\\/]*"
)
"""Absolute paths, and those that begin with ~ or .., at the beginning of a word."""
HIDDEN = "…"


def public(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with paths cut to their last part, and values whose key names a secret hidden."""
    return {str(key): _public(str(key), value) for key, value in values.items()}


def public_text(text: str) -> str:
    """Free text: paths cut, tokens and logins hidden."""
    home = os.path.expanduser("~")
    if len(home) > 1:
        text = text.replace(home, "~")
    text = _LOGIN.sub(f"{HIDDEN}@", _TOKENS.sub(HIDDEN, text))
    return _PATH.sub(_last_part, text)


def _last_part(path: re.Match[str]) -> str:
    return f"{HIDDEN}/" + re.split(r"[\\/]+", path[0].rstrip("\\/"))[-1]


def public_override(word: str) -> str:
    """`data.path=/home/me/q.jsonl` → `data.path=…/q.jsonl`."""
    key, equals, value = word.partition("=")
    return f"{key}{equals}{_public(key.rpartition('.')[2], value)}"


def _public(key: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return public(value)
    if isinstance(value, list):
        return [_public(key, one) for one in value]
    if isinstance(value, str):
        return HIDDEN if value and _SECRET_KEYS.search(key) else public_text(value)
    return value
