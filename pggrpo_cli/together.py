"""What only shows when the parts of a run are seen together, before a model loads."""

from __future__ import annotations

from typing import Any

from pggrpo_cli.config import TrainConfig
from pggrpo_cli.errors import ConfigError
from pggrpo_cli.scoring.scorer import reward_settings
from pggrpo_cli.suggestions import did_you_mean
from pggrpo_cli.types import Dataset

LOSS_NEEDS = (
    "needs_reference",
    "needs_old_logprobs",
    "needs_pairs",
    "needs_entropy",
    "needs_advantages",
    "needs_zero_advantages",
)


def check_together(config: TrainConfig, loss: Any, sampler: Any, rows: Dataset) -> None:
    """Raises ConfigError for a loss that does not say what it needs, and for parts that do not fit."""
    missing = [name for name in LOSS_NEEDS if not isinstance(getattr(loss, name, None), bool)]
    if missing:
        raise ConfigError(
            f"`loss._target_`: {config.loss['_target_']} does not say {', '.join(missing)}; a loss says True or False "
            "to each, see Loss in pggrpo_cli/protocols.py."
        )
    _refuse_sources_that_are_not_there(config, rows)
    compares = loss.needs_advantages or loss.needs_pairs
    if compares and sampler.group_size < 2:
        raise ConfigError(
            f"`sampler.group_size`: {sampler.group_size} completion a prompt leaves nothing to compare; this loss needs "
            "2 or more."
        )
    offline = not hasattr(sampler, "max_new_tokens")
    evaluates = config.evaluation.every is not None and rows.evaluation
    if offline and evaluates and config.evaluation.max_new_tokens is None:
        raise ConfigError(
            "`evaluation.max_new_tokens`: is null, and this sampler, which samples nothing in training, has no length for "
            "the answers to held-out prompts. Give one, such as evaluation.max_new_tokens=64, or evaluation.every=null."
        )


def _refuse_sources_that_are_not_there(config: TrainConfig, rows: Dataset) -> None:
    """A misspelt name in applies_to would switch a reward off without a word."""
    if not isinstance(rows.train, list):
        return  # rows that are read when their turn comes
    there = {row.columns.get("data_source") for row in (*rows.train, *rows.evaluation)} - {None}
    for name in config.reward:
        wanted = reward_settings(config, name).applies_to
        if wanted is not None and not there & set(wanted):
            names = ", ".join(sorted(map(str, there))) or "none, for no row has that column"
            raise ConfigError(
                f"`reward.{name}.applies_to`: no row has a data_source of {', '.join(map(str, wanted))}, so this reward would "
                f"never apply.{did_you_mean(str(wanted[0]) if wanted else '', sorted(map(str, there)))} There are: {names}."
            )
