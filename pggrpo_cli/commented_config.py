"""A composed configuration with the comments that its files have: what `--help` and `pggrpo config show` print."""

from __future__ import annotations

import argparse
import shutil
import string
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra._internal.hydra import Hydra
from hydra.core.object_type import ObjectType
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from pggrpo_cli.conf_files import commented, comments_of, within

HELP_COLUMNS = 80
"""Of a page that goes into a pipe, or to a terminal that does not know its width."""
MIN_COLUMNS = 30
OPTIONS_AT = 4


def commented_config(hydra: Hydra, name: str, overrides: list[str], *, resolve: bool = False) -> str:
    """YAML of the configuration without Hydra's own node."""
    return _commented(hydra, name, overrides, _compose(hydra, name, overrides), resolve)


def help_page(hydra: Hydra, name: str, options: argparse.Namespace) -> str:
    """hydra.help.template of the configuration, filled in: Hydra.app_help, with comments."""
    cfg = _compose(hydra, name, options.overrides)
    width = shutil.get_terminal_size((HELP_COLUMNS, 24)).columns
    # Hydra's own list_all_config_groups copies the whole repository once a group: half a second.
    files = hydra.config_loader.repository
    groups = [group for group in files.get_group_options("", ObjectType.GROUP) if group != "hydra"]
    lines = [_group(group, files.get_group_options(group, ObjectType.CONFIG), width) for group in sorted(groups)]
    return string.Template(cfg.hydra.help.template).substitute(
        APP_CONFIG_GROUPS="\n".join(lines),
        CONFIG=within(_commented(hydra, name, options.overrides, cfg, options.resolve), width),
    )


def _group(group: str, options: Sequence[str], width: int) -> str:
    """One group and its options, those of further lines below the first."""
    return textwrap.fill(
        f"{group}: {', '.join(sorted(options))}",
        max(width, MIN_COLUMNS),
        subsequent_indent=" " * OPTIONS_AT,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _compose(hydra: Hydra, name: str, overrides: list[str]) -> DictConfig:
    return hydra.compose_config(
        config_name=name, overrides=overrides, run_mode=RunMode.RUN, with_log_configuration=False
    )


def _commented(hydra: Hydra, name: str, overrides: list[str], cfg: DictConfig, resolve: bool) -> str:
    shown = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    return commented(OmegaConf.to_yaml(shown, resolve=resolve), comments_of(_files(hydra, name, overrides)))


def _files(hydra: Hydra, name: str, overrides: list[str]) -> Iterator[tuple[Path, str]]:
    """The files that the configuration is composed of, in their order, each with its package."""
    loader = hydra.config_loader
    folders = [one.path for one in loader.get_search_path().get_path() if one.path is not None]
    local = [Path(path.removeprefix("file://")) for path in folders if "://" not in path.removeprefix("file://")]
    for one in loader.compute_defaults_list(name, overrides, RunMode.RUN).defaults:
        if one.config_path is None or one.config_path.startswith("hydra"):
            continue
        for folder in local:
            file = folder / f"{one.config_path}.yaml"
            if file.is_file():
                yield file, one.package or ""
                break
