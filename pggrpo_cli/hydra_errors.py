"""What Hydra and OmegaConf complain of, said in our own way: one paragraph, the dotted key first, did you mean."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice, product
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException, ValidationError

from pggrpo_cli.class_source import read_parameters
from pggrpo_cli.config import SECTIONS, TrainConfig, key_of
from pggrpo_cli.errors import ConfigError, UsageError
from pggrpo_cli.suggestions import did_you_mean, nearest

MOST_TRIED = 64
"""Combinations of a sweep that are looked through for the one an error is about."""
Compose = Callable[[list[str]], DictConfig]
NO_SUCH_KEY = r"Could not override '(?P<key>[^']+)'|Could not delete (?:from config\. )?'(?P<deleted>[^'=]+)"
PLUGINS = {"optuna": "optuna", "tpe": "optuna", "joblib": "joblib", "submitit": "slurm"}
"""Options of groups of Hydra (up to a _) that a plugin brings, and which of our extras has it."""
MERGING = r"Error merging override (?P<override>.+)"


@contextmanager
def hydra_errors(
    overrides: list[str], groups: Callable[[], list[str]], options: Callable[[str], list[str]], compose: Compose
) -> Iterator[None]:
    """Turns what Hydra raises within into ConfigError or UsageError.

    `groups` lists the configuration groups, `options` those of a group; `compose` composes again with fewer overrides,
    to learn which keys there are.
    """
    try:
        yield
    except MissingConfigException as error:
        raise ConfigError(_missing(error, options)) from error
    except OverrideParseException as error:
        what = str(error).splitlines()[0]
        raise UsageError(
            f"`{_typed(error.override)}`: cannot be read as key=value: {what}. Quote what holds spaces, commas, brackets or =, "
            "for the shell too: 'name=\"a, b\"'."
        ) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_composition(error, overrides, groups, compose)) from error
    except (AttributeError, AssertionError) as error:  # OmegaConf's own, of a mapping that is null in its schema
        empty = "hydra.sweeper.params"
        typed = any(word.lstrip("+~").partition("=")[0].startswith(empty) for word in overrides)
        if not typed or not (f"full_key: {empty}" in str(error) or "Unexpected type" in str(error)):
            raise
        raise ConfigError(
            f"`{empty}`: holds nothing, and Hydra cannot fill it from the command line. Type the values to sweep over, "
            f"KEY=FIRST,SECOND, or write {empty} into a file conf/experiment/NAME.yaml of yours."
        ) from error
    except UserWarning as warning:  # see composing.py: a missing search path only warns
        raise ConfigError(f"`hydra.searchpath`: {warning} Give an existing folder as file:///absolute/path.") from None


def _typed(text: str | None) -> str:
    """`text` without the ++ that composing.py puts before some words."""
    return re.sub(r"(?<![\w+])\+\+(?=(?:reward|data)\.)", "", text or "")


def _missing(error: MissingConfigException, options: Callable[[str], list[str]]) -> str:
    """A file that is not there: a group's option, or the primary configuration."""
    group, _, option = (error.missing_cfg_file or "").rpartition("/")
    if not group:
        return " ".join(str(error).split())
    extra = PLUGINS.get(option.partition("_")[0]) if group.startswith("hydra/") else None
    if extra is not None:
        return f"`{group}`: {group}={option} comes with a plugin that is not installed: pip install 'pggrpo[{extra}]'"
    known = options(group)
    there = f" There are: {', '.join(known)}." if known else " There are none in conf/ or on the search path."
    return f"`{group}`: there is no {group}={option}.{did_you_mean(option, known)}{there}"


def _composition(error: Exception, overrides: list[str], groups: Callable[[], list[str]], compose: Compose) -> str:
    text = _typed(str(error))
    found = re.match(NO_SUCH_KEY, text)
    deleted = re.match(r"Could not delete from config\. '([^']+)' does not exist", text)
    if found or deleted:
        key = deleted[1] if deleted else (found["key"] or found["deleted"]) if found else ""
        config, of_a_sweep = _compose_without(key, overrides, compose)
        told = no_such_key(key, known_keys(config), groups())
        return f"{told} So it is with {' '.join(of_a_sweep)}." if of_a_sweep else told
    within = re.match(r"In 'data/(\w+)': Could not override '\w+@(data\.sources\.[^.']+)", text)
    if within:
        return (
            f"`{within[2]}`: data={within[1]} is a whole set-up, with its sampler and reward, and no source. Within a "
            f"mixture use +data@{within[2]}=jsonl, which reads preference pairs too, with sampler=mixed."
        )
    merging = re.match(MERGING, text)
    if merging and isinstance(error.__cause__, OmegaConfBaseException):
        return _bad_value(merging["override"], error.__cause__)
    if isinstance(error, ValidationError):
        return f"`{error.full_key}`: {str(error).splitlines()[0]}."
    ambiguous = re.match(r"Ambiguous value for argument '([^=]+)=(.*)'", text)
    if ambiguous:
        key, value = ambiguous[1], ambiguous[2]
        return (
            f"`{key}`: several values ({value}) are a sweep, and this is one run. A sweep: pggrpo train -m …; for a list write "
            f"{key}=[{value}]; for text with commas '{key}=\"{value}\"'."
        )
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("See http")]
    cause = f" {str(error.__cause__).splitlines()[0]}." if error.__cause__ is not None and str(error.__cause__) else ""
    return f"{' '.join(lines)}{cause}"


def no_such_key(key: str, keys: Iterable[str], groups: Iterable[str]) -> str:
    """A paragraph on a key that is not there, with the nearest ones that are."""
    known = sorted({one for one in {*keys, *groups} if not one.endswith("._target_")})
    parent, _, last = key.rpartition(".")
    siblings = [one.rpartition(".")[2] for one in known if one.rpartition(".")[0] == parent]
    found = [f"{parent}.{one}".lstrip(".") for one in nearest(last, siblings)]
    found = found or [one for one in known if one.endswith(f".{last}")] or nearest(key, known)
    meant = f" Did you mean {' or '.join(found[:3])}?" if found else ""
    if parent and siblings:
        return f"`{key}`: there is no such key.{meant} `{parent}` has: {', '.join(siblings)}."
    top = ", ".join(one for one in known if "." not in one)
    return f"`{key}`: there is no such key or group.{meant} There are: {top}."


def known_keys(cfg: Any) -> list[str]:
    """All dotted keys of `cfg`, inner ones too."""
    keys = []
    container: Any = OmegaConf.to_container(cfg, resolve=False) if OmegaConf.is_config(cfg) else cfg
    for key, value in container.items():
        if key == "hydra":
            continue
        keys.append(str(key))
        if isinstance(value, dict):
            keys += [f"{key}.{inner}" for inner in known_keys(value)]
    return keys


def _compose_without(key: str, overrides: list[str], compose: Compose) -> tuple[Any, list[str]]:
    """The configuration without the override of `key`, and the values that a sweep has in it, the first ones with which the
    key is not there; if another override is wrong too, without any."""
    others = [one for one in overrides if one.lstrip("+~").partition("=")[0] != key]
    try:
        parsed = OverridesParser.create().parse_overrides(others)
        sweeping = [one for one in parsed if one.is_sweep_override()]
        values = [[f"{one.key_or_group}={value}" for value in one.sweep_string_iterator()] for one in sweeping]
    except (HydraException, ValueError):
        sweeping, values = [], []
    plain = [one for one in others if one not in {swept.input_line for swept in sweeping}]
    found: tuple[Any, list[str]] | None = None
    for chosen in islice(product(*values), MOST_TRIED):
        try:
            found = compose([*plain, *chosen]), list(chosen)
        except (HydraException, OmegaConfBaseException):
            continue
        if key not in known_keys(found[0]):
            return found
    return found or (compose([]), [])


def _bad_value(override: str, cause: OmegaConfBaseException) -> str:
    """A value of the wrong type for one of our own sections."""
    parsed = OverridesParser.create().parse_override(override)
    key, value = str(parsed.key_or_group), parsed.value()
    section, _, name = key.rpartition(".")
    cls = SECTIONS.get(section) if section else TrainConfig
    parameters = {} if cls is None else read_parameters(f"{cls.__module__}.{cls.__name__}").by_name
    kinds = {key_of(field_name): one.type for field_name, one in parameters.items()}
    if key in SECTIONS:
        names = ", ".join(key_of(one) for one in read_parameters(f"pggrpo_cli.config.{SECTIONS[key].__name__}").by_name)
        return f"`{key}`: is a section, not a value; it has the keys {names}, for example {key}.{names.split(',')[0]}=…"
    if name in kinds and (problem := kinds[name].problem(value)) is not None:
        return f"`{key}`: {problem}; allowed is {kinds[name].allowed()}."
    return f"`{key}`: {str(cause).splitlines()[0]}."
