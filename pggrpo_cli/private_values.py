"""A configuration as strangers may see it: no folder of this machine, no secret."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

_WORDS = (
    r"key|(?:api|access|account|auth|client|master|private|secret|signing|subscription)_?keys?"
    r"|token|(?:api|access|auth|bearer|hf|id|refresh|secret|session)_?tokens?"
    r"|secrets?|pass|passwords?|passwd|passphrases?|pwd|credentials?|authorization|auth|bearer|cookies?|jwt|sas|sig|signature"
)
_SECRET_NAME = re.compile(rf"(?:^|[_.\-])(?:{_WORDS})$", re.IGNORECASE)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_HARMLESS = re.compile(r"\s*(?:[-+]?[\d.]+(?:e[-+]?\d+)?|true|false|null|none|)\s*", re.IGNORECASE)
"""What is a count or a switch, such as max_tokens=256; a number is hidden only where a word says that it is a secret."""
_NEVER_A_COUNT = re.compile(r"secret|passw|passphrase|pwd|credential|api_?key|access_?key", re.IGNORECASE)

_TOKENS = re.compile(
    r"\b(?:(?:hf_|sk-|gh[pousr]_|github_pat_|xox[abprs]-|AKIA|glpat-|AIza|[srp]k_(?:live|test)_|npm_|pypi-)[A-Za-z0-9_-]{12,}"
    r"|eyJ[\w-]{8,}\.[\w-]+\.[\w-]*)"
)
"""Access tokens by the beginnings that their makers gave them."""
_SCHEMES = re.compile(r"\b(Bearer|(?:[Bb]asic|[Tt]oken|bearer)(?=\s+\S+[\dA-Z=]))(\s+)[A-Za-z0-9._~+/=-]{6,}")
"""What stands in an Authorization header."""
_LOGIN = re.compile(r"(?<=://)[^/\s@'\"]+@")
_QUERY = re.compile(
    r"(\b[a-z][a-z0-9+.-]*://[^\s'\"<>?#]*)(?:\?|#(?=[^\s'\"<>]*=))[^\s'\"<>]+?(?=[,;.)\]}]*(?:[\s'\"<>]|$))",
    re.IGNORECASE,
)
"""Of an address, and a fragment that holds values."""
_PAIR = re.compile(
    r"(?P<before>(?:(?:^|[{\[,;&?\s])['\"]?(?=[\w.-]+['\"]?=)|(?:^|[{\[,\n])\s*['\"]?(?=[\w.-]+['\"]?:)))"
    r"(?P<name>[A-Za-z][\w.-]*)(?P<sign>['\"]?(?:=|:\s*))"
    r"(?P<value>'[^']*'|\"[^\"]*\"|\[[^\]]*\]|\{[^}]*\}|[^\s,;&}\]]+)"
)
"""`name=value` and `name: value` within a text, such as a mapping that was typed."""
_PATH = re.compile(
    r"(?<![^\s=,:\[({'\"])(?!(?<=:)//)(?:file://)?(?:~[\w.-]*|\.\.|[A-Za-z]:(?=[\\/]))?(?:[\\/]+[^\\/\s,'\"\])}]+){2,}[\\/]*"
)
"""Absolute paths, and those that begin with ~ or .., at the beginning of a word."""
HIDDEN = "…"


def names_a_secret(name: str) -> bool:
    """Whether what is called `name` (a key, a header, a parameter of an address) is a secret by its name."""
    return _SECRET_NAME.search(_CAMEL.sub("_", name)) is not None


def looks_like_a_secret(text: str) -> bool:
    """Whether a token that a maker marks as such stands in it."""
    return _TOKENS.search(text) is not None


def public(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with paths cut to their last part, queries of addresses cut, and values whose key names a secret hidden."""
    return {str(key): _public(str(key), value) for key, value in values.items()}


def public_text(text: str) -> str:
    """Free text: paths and queries cut, tokens, logins and what is called a secret hidden."""
    home = os.path.expanduser("~")
    if len(home) > 1:
        text = text.replace(home, "~")
    text = _LOGIN.sub(f"{HIDDEN}@", _TOKENS.sub(HIDDEN, text))
    text = _QUERY.sub(rf"\1?{HIDDEN}", text)
    text = _SCHEMES.sub(rf"\1\2{HIDDEN}", text)
    text = _PAIR.sub(_without_its_secret, text)
    return _PATH.sub(_last_part, text)


def public_setting(key: str, text: str) -> str:
    """The value of a dotted key, as text: hidden if any part of the key names a secret."""
    return HIDDEN if any(_hides(part, text) for part in key.split(".")) else public_text(text)


def public_override(word: str) -> str:
    """`data.path=/home/me/q.jsonl` → `data.path=…/q.jsonl`."""
    key, equals, value = word.partition("=")
    return f"{key}={public_setting(key.lstrip('+~'), value)}" if equals else public_text(word)


def _without_its_secret(pair: re.Match[str]) -> str:
    hidden = any(_hides(part, pair["value"]) for part in pair["name"].split("."))
    return pair["before"] + pair["name"] + pair["sign"] + (HIDDEN if hidden else pair["value"])


def _hides(name: str, value: str) -> bool:
    """Whether `value` is to be hidden for its name."""
    if not names_a_secret(name) or not value.strip():
        return False
    return _HARMLESS.fullmatch(value) is None or (value.strip().isdigit() and _NEVER_A_COUNT.search(name) is not None)


def _last_part(path: re.Match[str]) -> str:
    return f"{HIDDEN}/" + re.split(r"[\\/]+", path[0].rstrip("\\/"))[-1]


def _public(key: str, value: Any, *, below_a_secret: bool = False) -> Any:
    secret = below_a_secret or names_a_secret(key)
    if isinstance(value, Mapping):
        return {str(name): _public(str(name), one, below_a_secret=secret) for name, one in value.items()}
    if isinstance(value, list):
        return [_public(key, one, below_a_secret=secret) for one in value]
    if isinstance(value, str):
        return HIDDEN if value and secret else public_text(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return HIDDEN if below_a_secret or _hides(key, str(value)) else value
    return value
