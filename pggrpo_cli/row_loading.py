"""The rows of a run: loaded by the data component, filtered by the keys of its node."""

from __future__ import annotations

import inspect

from pggrpo_cli.config import TrainConfig
from pggrpo_cli.errors import ConfigError
from pggrpo_cli.filters import Sieve, filter_of
from pggrpo_cli.instantiate import blamed, component
from pggrpo_cli.lazy_rows import selected
from pggrpo_cli.records import limited
from pggrpo_cli.types import Dataset


def load_rows(config: TrainConfig) -> tuple[Dataset, Sieve]:
    """The rows, and what the filters did to them."""
    source = component(config.data, "data")
    sieve = Sieve(filter_of(config.data))
    with blamed("data", config.data["_target_"]):
        filters_itself = "sieve" in inspect.signature(source.load).parameters
        rows = source.load(config.seed, sieve) if filters_itself else source.load(config.seed)
    if not isinstance(rows, Dataset):
        raise ConfigError(
            f"`data._target_`: {config.data['_target_']}.load returned a {type(rows).__name__}; a "
            "pggrpo_cli.types.Dataset with train and evaluation rows is needed."
        )
    if not filters_itself:
        rows = Dataset(train=limited(selected(rows.train, sieve), sieve), evaluation=rows.evaluation)
    return rows, sieve
