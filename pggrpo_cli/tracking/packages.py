"""Trackers that a configuration names and that are not installed, found before anything heavy loads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pggrpo_cli.errors import ConfigError
from pggrpo_cli.tracking.tracker import installed

PACKAGES = {
    "pggrpo_cli.logger.tensorboard.TensorBoard": "tensorboard",
    "pggrpo_cli.logger.wandb.Wandb": "wandb",
    "pggrpo_cli.logger.mlflow.Mlflow": "mlflow",
    "pggrpo_cli.logger.trackio.Trackio": "trackio",
}
"""The library of a class, which is also the name of its extra."""


def check_packages(values: Mapping[str, Any]) -> None:
    """`values` have passed check.check_values. Raises ConfigError."""
    for name, node in values["logger"].items():
        package = PACKAGES.get(node["_target_"])
        if package is not None and not installed(package):
            raise ConfigError(
                f"`logger.{name}`: needs {package}, which is not installed: pip install 'pggrpo[{package}]', or leave it "
                f"out of logger=[…]."
            )
