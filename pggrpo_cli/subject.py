"""What `pggrpo eval` and `pggrpo generate` look at: a run, one of its checkpoints, or any model; and the configuration for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pggrpo_cli.config import MAPPING_KEYS, NAMED_GROUPS, SINGLE_GROUPS, TrainConfig, build, conf_dir, plain
from pggrpo_cli.errors import UsageError
from pggrpo_cli.exporting.export_source import Source, find_source
from pggrpo_cli.manifest import MANIFEST
from pggrpo_cli.run_directory import CONFIG, read_config
from pggrpo_cli.run_overrides import parse_overrides, refuse_targets, set_key
from pggrpo_cli.suggestions import did_you_mean

SPEAKS = ("model", "sampler")
SCORES = (*SPEAKS, "data", "reward", "advantage", "pairing", "loss")
"""Groups of which components are made for an answer, and for a group with its rewards and advantages."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """`config.model` is the model to be looked at."""

    label: str
    config: TrainConfig
    base: Mapping[str, Any] | None
    """The model node that its run began with; None for a model that is no run's."""
    step: int = 0
    """Steps that it was trained for; 0 for a model that is no run's."""
    run_dir: Path | None = None

    @property
    def perhaps_plain(self) -> bool:
        """Whether its run may have been asked in plain texts; its data alone, if they are loaded, tell."""
        return self.run_dir is not None and self.config.data.get("as_chat") is False


def find_subject(
    name: str,
    overrides: Sequence[str],
    checkpoint: str | None,
    config_dir: str | None,
    built: Sequence[str] | None = None,
) -> Subject:
    """`name`: a run (of which `checkpoint` names one, see export_source), a checkpoint, a model folder, a .gguf file, a hub
    id, or an option of the group `model`. Data, rewards and sampler are the run's, or those of `pggrpo train`, with
    `overrides` over them. `built`: the groups of which components will be made; None: all. Code of a run is refused in
    these. Raises PggrpoError before anything heavy loads."""
    from pggrpo_cli.check import check_values

    path = Path(name).expanduser()
    if (path / MANIFEST).exists() or (path / CONFIG).exists():
        source = find_source(path, checkpoint)
        step, run_dir = source.step, source.run_dir
        base, values = _of_run(source, overrides, config_dir, built)
        label = f"step {source.step}" if source.run_dir is None else f"step {source.step} of {_shown(source.run_dir)}"
    else:
        if checkpoint is not None:
            raise UsageError(f"`--checkpoint`: {name} is no run, so it has no checkpoint {checkpoint}.")
        base, values, label = None, _of_model(name, overrides, config_dir), name
        step, run_dir = 0, None
    check_values(values)
    return Subject(label=label, config=build(values), base=base, step=step, run_dir=run_dir)


def _of_run(
    source: Source, overrides: Sequence[str], config_dir: str | None, built: Sequence[str] | None
) -> tuple[Mapping[str, Any] | None, dict[str, Any]]:
    """(the model that the run began with, its configuration with the checkpoint as its model)."""
    _refuse_a_model(overrides)
    groups = _chosen_groups(overrides)
    typed = [word for word in overrides if _key(word).partition(".")[0].partition("@")[0] in groups]
    keys = [word for word in overrides if word not in typed]
    if source.run_dir is None:  # a checkpoint by itself: it knows its model, not its data
        values = _composed(overrides, config_dir)
        base = None
    else:
        values = read_config(source.run_dir)
        base = values["model"]
        if groups:
            values |= {group: _composed(typed, config_dir)[group] for group in groups}
        changes = parse_overrides(keys)
        for key, value in changes.items():
            set_key(values, key, value)
        allowed = changes.get("security.allow_targets", [])
        read = {key: one for key, one in values.items() if key not in groups and (built is None or key in built)}
        refuse_targets(read, allowed, typed=[])
    own = {key: value for key, value in values["model"].items() if key in MAPPING_KEYS["model"]}
    hf = {"_target_": "pggrpo_cli.model.hf.Hf", "path": str(source.checkpoint), "revision": None}
    return base, values | {"model": hf | own}


def _of_model(name: str, overrides: Sequence[str], config_dir: str | None) -> dict[str, Any]:
    _refuse_a_model(overrides)
    options = {file.stem for file in (conf_dir() / "model").glob("*.yaml")}
    path = Path(name).expanduser()
    if name in options and not path.exists():
        return _composed([f"model={name}", *overrides], config_dir)
    if path.is_dir() and not (path / "config.json").exists():
        below = sorted(str(path / one.parent.name) for one in path.glob(f"*/{CONFIG}"))
        which = f"It holds runs; give one of them, such as {below[0]}." if below else "Give the folder of one of them."
        raise UsageError(
            f"`{name}`: is no run, no checkpoint, and no model folder, which would hold a config.json. {which}"
        )
    if not path.exists() and "/" not in name:
        raise UsageError(
            f"`{name}`: is no run, checkpoint, model folder or .gguf file, no hub id (owner/name), and no model= of ours "
            f"({', '.join(sorted(options))}).{did_you_mean(name, options)}"
        )
    values = _composed(["model=hf", "model.path=x", *overrides], config_dir)
    return values | {"model": values["model"] | {"path": name}}


def _shown(run_dir: Path) -> str:
    """The name of a run; of a job of a sweep with the sweep's."""
    path = run_dir.absolute()
    return f"{path.parent.name}/{path.name}" if path.name.isdigit() else path.name


def _composed(overrides: Sequence[str], config_dir: str | None) -> dict[str, Any]:
    from pggrpo_cli.composing import compose

    return plain(compose("train", list(overrides), config_dir))


def _key(word: str) -> str:
    return word.lstrip("+~").partition("=")[0]


def _chosen_groups(overrides: Sequence[str]) -> list[str]:
    """Groups of which an option is chosen anew: data=jsonl, ~reward.format, +data@…=…"""
    every = (*SINGLE_GROUPS, *NAMED_GROUPS)
    chosen = [
        _key(word).partition("@")[0] for word in overrides if "=" in word and "." not in _key(word).partition("@")[0]
    ]
    chosen += [_key(word).partition(".")[0] for word in overrides if word.startswith("~")]
    return [group for group in every if group in chosen]


def _refuse_a_model(overrides: Sequence[str]) -> None:
    for word in overrides:
        if _key(word) in ("model", "model.path"):
            raise UsageError(f"`{word}`: the model is what stands first on the line; leave this out.")
