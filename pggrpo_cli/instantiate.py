"""Components from their `_target_` nodes, and whose fault it is when that fails."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pggrpo_cli.class_source import is_ours
from pggrpo_cli.config import node_keys
from pggrpo_cli.errors import ConfigError, PggrpoError, UserCodeError

LIBRARIES = ("torch", "transformers")
"""Whose errors speak of the values they were given; those of a user's class need their traceback."""


def component(node: Mapping[str, Any], key: str) -> Any:
    """Instantiates a `_target_` node, without the keys that belong to the node and not to the class."""
    from hydra.utils import instantiate

    own = node_keys(key)
    arguments = {name: value for name, value in node.items() if name not in own}
    with blamed(key, str(node["_target_"])):
        return instantiate(arguments | {"_convert_": "all"})


def components(nodes: Mapping[str, Mapping[str, Any]] | None, key: str) -> dict[str, Any]:
    return {name: component(node, f"{key}.{name}") for name, node in (nodes or {}).items()}


@contextmanager
def blamed(key: str, target: str) -> Iterator[None]:
    """Errors of a class that is not ours, as the user's: of its code, or of the values that a library refuses."""
    from hydra.errors import InstantiationException

    try:
        yield
    except PggrpoError:
        raise
    except Exception as error:
        cause = error.__cause__ if isinstance(error, InstantiationException) and error.__cause__ else error
        if isinstance(cause, PggrpoError):
            raise cause from None
        if is_ours(target):
            raise
        if target.partition(".")[0] in LIBRARIES:
            raise ConfigError(f"`{key}`: {target} refuses its values: {cause}. Look at the keys of `{key}`.") from cause
        raise UserCodeError(
            f"`{key}`: {target} raised {type(cause).__name__}: {cause}. Its traceback stands above."
        ) from cause
