"""Secrets that have come into a configuration, which is written to disk as it is."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

_NAMES = re.compile(r"(^|_)(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$", re.IGNORECASE)
_SECRET = re.compile(r"(?=.*\d)(?=.*[A-Za-z])[\x21-\x7e]{16,}")
"""What a secret looks like: a word of some length with letters and digits. EOS_TOKEN and SORT_KEY hold none."""


def secret_problems(values: Mapping[str, Any]) -> Iterator[str]:
    """A paragraph for each text that holds, as a word of its own, the value of an environment variable named like a
    secret. Never the value."""
    secrets = {
        re.compile(rf"(?<![A-Za-z0-9]){re.escape(value)}(?![A-Za-z0-9])"): name
        for name, value in os.environ.items()
        if _NAMES.search(name) and _SECRET.fullmatch(value) and not os.path.isabs(value)
    }
    if secrets:
        for key, text in texts(values, ""):
            for value, name in secrets.items():
                if value.search(text):
                    yield (
                        f"`{key}`: holds the value of the environment variable {name}, which looks like a secret, and the "
                        f"configuration is written to disk. Give the variable's name where one is asked for, and keep it "
                        "out of the configuration; if it is no secret, rename the variable."
                    )


def texts(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """(dotted key, text) of every text within `value`, which stands at `path`."""
    if isinstance(value, Mapping):
        for key, one in value.items():
            if key != "_target_":
                yield from texts(one, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for index, one in enumerate(value):
            yield from texts(one, f"{path}[{index}]")
    elif isinstance(value, str):
        yield path, value
