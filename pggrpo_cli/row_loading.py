"""The rows of a run: loaded by the data component, filtered by the keys of its node."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pggrpo_cli.config import TrainConfig
from pggrpo_cli.errors import ConfigError
from pggrpo_cli.filters import Sieve, filter_of
from pggrpo_cli.instantiate import blamed, component
from pggrpo_cli.lazy_rows import selected
from pggrpo_cli.records import limited
from pggrpo_cli.types import Dataset


def load_rows(config: TrainConfig) -> tuple[Dataset, Sieve]:
    """The rows, and what the filters did to them."""
    sieve = Sieve(filter_of(config.data))
    return load_node(config.data, "data", config.seed, sieve), sieve


def load_node(node: Mapping[str, Any], key: str, seed: int, sieve: Sieve | None) -> Dataset:
    """The rows of one data component. Raises ConfigError naming `key` if it returns something else."""
    source = component(node, key)
    with blamed(key, node["_target_"]):
        filters_itself = "sieve" in inspect.signature(source.load).parameters
        rows = source.load(seed, sieve) if filters_itself else source.load(seed)
    if not isinstance(rows, Dataset):
        raise ConfigError(
            f"`{key}._target_`: {node['_target_']}.load returned a {type(rows).__name__}; a "
            "pggrpo_cli.types.Dataset with train and evaluation rows is needed."
        )
    return rows if filters_itself else replace(rows, train=limited(selected(rows.train, sieve), sieve))
