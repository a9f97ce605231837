"""Targets that are not ours: imported, then their signature is compared with the keys of the node."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any

from pggrpo_cli.errors import UserCodeError
from pggrpo_cli.suggestions import did_you_mean


def foreign_problems(path: str, target: str, arguments: Mapping[str, Any], *, partial: bool) -> Iterator[str]:
    """One paragraph for each thing that is wrong. Raises UserCodeError if the import itself raises."""
    try:
        called = _find(path, target)
    except LookupError as error:
        yield f"`{path}._target_`: {error.args[0]}"
        return
    try:
        parameters = inspect.signature(called).parameters
    except (TypeError, ValueError):  # some C functions have none: their own call will tell
        return
    open_ended = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    by_key = {
        name: one for name, one in parameters.items() if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
    }
    for key in arguments:
        if key not in by_key and not open_ended:
            yield f"`{path}.{key}`: {target} has no such key.{did_you_mean(key, by_key)} It has {', '.join(by_key) or 'none'}."
    for name, one in by_key.items():
        if one.default is one.empty and name not in arguments and not partial:
            yield f"`{path}.{name}`: is missing; {target} needs it. Add it to the file, or +{path}.{name}=VALUE."


def _find(path: str, target: str) -> Callable[..., Any]:
    """The callable that `target` names. Raises LookupError if there is none."""
    parts = target.split(".")
    for length in range(len(parts) - 1, 0, -1):
        module_name = ".".join(parts[:length])
        try:
            found: Any = import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
                continue
            raise UserCodeError(f"`{path}._target_`: importing {module_name} failed: {error}") from error
        except Exception as error:
            raise UserCodeError(f"`{path}._target_`: importing {module_name} failed: {error}") from error
        for index, part in enumerate(parts[length:], start=length):
            if not hasattr(found, part):
                names = [name for name in dir(found) if not name.startswith("_")]
                raise LookupError(f"{'.'.join(parts[:index])} has no {part}.{did_you_mean(part, names)}")
            found = getattr(found, part)
        if not callable(found):
            raise LookupError(f"{target} is not a class or function.")
        return found
    raise LookupError(f"there is no Python module {parts[0]!r} for {target!r}.")
