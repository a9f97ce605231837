"""Keys of rewards that ask a server, and of loggers that send to one: addresses, and secrets by variables' names alone."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from pggrpo_cli.private_values import looks_like_a_secret, names_a_secret, public_text

ASK_A_SERVER = ("pggrpo_cli.reward.http.Http", "pggrpo_cli.reward.judge.Judge")
JUDGE = ASK_A_SERVER[1]
ALSO_SECRET = ("code",)
"""Parameters of an address that are keys there: Azure's functions call theirs so."""
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_SHOWABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
"""A key that somebody gave in the place of a name does not look like this, so that no message shows it."""
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


def server_problems(values: Mapping[str, Any]) -> Iterator[str]:
    """A paragraph for each thing that is wrong, before anything heavy loads. Types are checked elsewhere."""
    rewards, scoring = values.get("reward"), values.get("scoring")
    each = scoring.get("each") if isinstance(scoring, Mapping) else None
    defaults = each if isinstance(each, Mapping) else {}
    for name, node in rewards.items() if isinstance(rewards, Mapping) else ():
        if not isinstance(node, Mapping) or node.get("_target_") not in ASK_A_SERVER:
            continue
        path = f"reward.{name}"
        yield from _url_problems(f"{path}.url", node.get("url"))
        if node.get("key_env") is not None:
            yield from _variable_problems(f"{path}.key_env", node["key_env"])
        headers = node.get("headers_env")
        for header, variable in headers.items() if isinstance(headers, Mapping) else ():
            if _HEADER.fullmatch(str(header)):
                yield from _variable_problems(f"{path}.headers_env.{header}", variable)
            else:
                yield f"`{path}.headers_env`: {str(header)!r} is no name of a header; for example {{Authorization: NAME}}."
        batch = node.get("batch_size", defaults.get("batch_size"))
        if node["_target_"] == JUDGE and node.get("mode") == "pairwise" and batch is not None:
            yield f"`{path}.batch_size`: {batch} may divide a group, which mode=pairwise needs whole; allowed is null."
    loggers = values.get("logger")
    for name, node in loggers.items() if isinstance(loggers, Mapping) else ():
        place = node.get("tracking_uri") if isinstance(node, Mapping) else None
        if isinstance(place, str) and "@" in urlsplit(place.replace("[", "").replace("]", "")).netloc:
            yield (
                f"`logger.{name}.tracking_uri`: holds a name or a password before the @, and the configuration is written to "
                "disk. Give the address alone, and the rest in MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
            )


def _url_problems(key: str, url: Any) -> Iterator[str]:
    if not isinstance(url, str) or url == "???":
        return
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    if "@" in parts.netloc:
        yield (
            f"`{key}`: holds a name or a password before the @, and the configuration is written to disk. Put them into an "
            "environment variable and name it: headers_env or key_env."
        )
    elif (secret := _secret_parameter(f"{parts.query}&{parts.fragment}")) is not None:
        yield (
            f"`{key}`: the address has a parameter {secret}, a secret by its look, and the configuration is written to disk. "
            "Put it into an environment variable and name that: it is then sent in a header, by headers_env or key_env."
        )
    elif parts.scheme not in ("http", "https") or not host or not url.isascii() or re.search(r"[\s\x00-\x20]", url):
        yield f"`{key}`: {public_text(url)!r} is no address; allowed is http://HOST:PORT/PATH or https://…, for example {key}=http://127.0.0.1:8000/v1."


def _secret_parameter(query: str) -> str | None:
    """The first parameter that is a secret by its name, or holds one that its maker marks as such."""
    for name, value in parse_qsl(query, keep_blank_values=True):
        if names_a_secret(name) or name.lower() in ALSO_SECRET:
            return repr(name)
        if looks_like_a_secret(value) or looks_like_a_secret(name):
            return "that holds an access token"
    return None


def _variable_problems(key: str, variable: Any) -> Iterator[str]:
    if not isinstance(variable, str) or not _NAME.fullmatch(variable):
        yield (
            f"`{key}`: is no name of an environment variable (it is not shown, in case it is the secret itself). Put the "
            f"secret into a variable, export NAME=…, and give its name: {key}=NAME."
        )
        return
    shown = (
        variable if _SHOWABLE.fullmatch(variable) else "the one it names (not shown, in case it is the secret itself)"
    )
    value = os.environ.get(variable, "").strip()
    if not value:
        yield f"`{key}`: the environment variable {shown} is not set, or empty. Set it before the run: export NAME=…"
    elif not (value.isascii() and value.isprintable()):
        yield f"`{key}`: the environment variable {shown} holds a character that no header may hold."
