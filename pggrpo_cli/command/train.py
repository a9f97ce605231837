"""pggrpo train: train a model, or a sweep of them with -m."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main(arguments: list[str]) -> int:
    from pggrpo_cli.hydra_start import start
    from pggrpo_cli.training import train

    start("train", arguments, check_all, train)
    return 0


def check_all(cfg: DictConfig) -> None:
    """Everything that can be known before a run directory is made. Raises ConfigError or DataError."""
    from pggrpo_cli.check import check
    from pggrpo_cli.config import plain
    from pggrpo_cli.data_files import check_files
    from pggrpo_cli.tracking.packages import check_packages

    check(cfg)
    values = plain(cfg)
    check_packages(values)
    check_files(values)
