"""The rows of a configuration."""

from __future__ import annotations

from pggrpo_cli.config import TrainConfig
from pggrpo_cli.errors import ConfigError
from pggrpo_cli.instantiate import blamed, component
from pggrpo_cli.types import Dataset


def load_rows(config: TrainConfig) -> Dataset:
    """What `data` names, loaded. Raises ConfigError, DataError, or UserCodeError for a class that is not ours."""
    source = component(config.data, "data")
    with blamed("data", config.data["_target_"]):
        rows = source.load(config.seed)
    if not isinstance(rows, Dataset):
        raise ConfigError(
            f"`data._target_`: {config.data['_target_']}.load returned a {type(rows).__name__}; a "
            "pggrpo_cli.types.Dataset with train and evaluation rows is needed."
        )
    return rows
