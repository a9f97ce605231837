"""Values within a row by a dotted name, and values of tables as plain Python."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ABSENT = object()
"""What `value_at` returns where there is nothing; None is a value."""


def value_at(record: Mapping[str, Any], path: str) -> Any:
    """The value of the column `path`, or of `a.b`, the key b of the column a; else ABSENT."""
    if path in record:
        return record[path]
    outer, _, name = path.rpartition(".")
    within = value_at(record, outer) if outer else ABSENT
    return within.get(name, ABSENT) if isinstance(within, Mapping) else ABSENT


def names_beside(record: Mapping[str, Any], path: str) -> tuple[str, list[str]]:
    """Where the way to `path` ends: ("reward_model", the keys that are there), or ("", the columns)."""
    outer = path.rpartition(".")[0]
    while outer:
        within = value_at(record, outer)
        if isinstance(within, Mapping):
            return outer, [str(name) for name in within]
        outer = outer.rpartition(".")[0]
    return "", [str(name) for name in record]


def plain(value: Any) -> Any:
    """Arrays and numbers of numpy, and tuples, as lists and numbers of Python; what else a table holds stays."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return plain(value.tolist()) if hasattr(value, "tolist") else value
