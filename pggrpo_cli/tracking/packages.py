"""Trackers that a configuration names and that are not installed, found before anything heavy loads."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from pggrpo_cli.errors import ConfigError

EXTRAS = {
    "pggrpo_cli.logger.tensorboard.TensorBoard": "tensorboard",
    "pggrpo_cli.logger.wandb.Wandb": "wandb",
    "pggrpo_cli.logger.mlflow.Mlflow": "mlflow",
    "pggrpo_cli.logger.trackio.Trackio": "trackio",
}
"""Of a class; each is named after the library that it brings."""
OWN_STORE = ("sqlalchemy", "alembic")
"""What MLflow needs beside itself where it has no server."""


def check_packages(values: Mapping[str, Any]) -> None:
    """`values` have passed check.check_values. Raises ConfigError."""
    for name, node in values["logger"].items():
        extra = EXTRAS.get(node["_target_"])
        if extra is not None:
            own = extra == "mlflow" and tracking_uri_of(node["tracking_uri"]) is None
            require(extra, *(OWN_STORE if own else ()), extra=extra, name=name)


def tracking_uri_of(wish: str | None) -> str | None:
    """Of MLflow's server or store; None: its own one in the run's directory."""
    return wish or os.environ.get("MLFLOW_TRACKING_URI")


def require(*modules: str, extra: str, name: str) -> None:
    """Raises ConfigError, of the logger called `name`, if one of them is not installed."""
    for module in modules:
        if not installed(module):
            raise not_installed(module, extra=extra, name=name)


def not_installed(module: str, *, extra: str, name: str) -> ConfigError:
    return ConfigError(
        f"`logger.{name}`: needs {module}, which is not installed: pip install 'pggrpo[{extra}]', or leave it out of "
        "logger=[…]."
    )


def installed(module: str) -> bool:
    """Whether there is a package of that name; a folder without __init__.py, such as wandb makes, is none."""
    try:
        found = find_spec(module)
    except (ImportError, ValueError):
        return False
    return found is not None and found.origin is not None
