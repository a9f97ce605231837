"""The schema of our own sections of the configuration, and where conf/ is found.

Ranges stand beside the fields; the defaults stand in conf/train.yaml and nowhere else. The groups (model, data, loss …)
are open `_target_` nodes: what may stand in them is written in the class that a `_target_` names (check.py reads it).
"""

from __future__ import annotations

import keyword
import operator
import types
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, make_dataclass
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from omegaconf import MISSING, DictConfig, OmegaConf

from pggrpo_cli.errors import ConfigError
from pggrpo_cli.ranges import Range

if TYPE_CHECKING:
    from pggrpo_cli.types import Sample

SINGLE_GROUPS = ("model", "data", "order", "sampler", "advantage", "pairing", "loss", "optimizer", "scheduler")
NAMED_GROUPS = ("reward", "logger")
"""Groups whose node is a mapping from names to `_target_` nodes."""

NODE_SETTINGS = {
    "reward": "pggrpo_cli.config.RewardSettings",
    "model": "pggrpo_cli.policy.ModelSettings",
    "data": "pggrpo_cli.filters.DataKeys",
}
"""Which class describes the keys of MAPPING_KEYS."""

MAPPING_KEYS: dict[str, frozenset[str]] = {
    "reward": frozenset(
        {"weight", "scale", "clip", "gate", "applies_to", "isolated", "batch_size", "timeout_s", "on_error"}
    ),
    "model": frozenset({"weight_dtype", "compute_dtype", "gradient_checkpointing", "chat_template"}),
    "data": frozenset(
        {
            *("system_prompt", "prompt_suffix", "max_prompt_tokens", "overlong"),
            *("where", "keep", "deduplicate", "limit"),
        }
    ),
}
"""Keys that belong to a group's node and not to the class that its `_target_` names."""


def node_keys(path: str) -> frozenset[str]:
    """MAPPING_KEYS of the node at `path`: of a component, and of each source of a mixture."""
    group, *rest = path.split(".")
    is_source = group == "data" and len(rest) == 2 and rest[0] == "sources"
    is_component = len(rest) == (group in NAMED_GROUPS)
    return MAPPING_KEYS.get(group, frozenset()) if is_component or is_source else frozenset()


@dataclass(frozen=True, kw_only=True)
class RewardSettings:
    """The keys of every named reward; those that its node does not have are taken from scoring.each."""

    weight: float
    scale: float
    """Multiplies the score, before it is clipped."""
    clip: list[float] | None
    """[lowest, highest]"""
    gate: str | None
    """The name of another reward: where that one is not positive, this one is 0."""
    applies_to: list[str] | None
    """Only rows whose column data_source is one of these."""
    isolated: bool
    """In a process of its own, which may hang or die; otherwise in the trainer."""
    batch_size: Annotated[int | None, Range(ge=1)]
    """Completions of one prompt in a call; None: all of a step."""
    timeout_s: Annotated[float | None, Range(gt=0)]
    """Seconds for one call of an isolated reward."""
    on_error: Literal["raise", "skip"] | float
    """raise: the run ends; skip: the reward does not apply to this completion; a number: its score."""

    def scaled(self, score: float) -> float:
        value = self.scale * score
        return value if self.clip is None else min(max(value, self.clip[0]), self.clip[1])

    def applies(self, sample: Sample) -> bool:
        return self.applies_to is None or sample.columns.get("data_source") in self.applies_to


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """Keys that mean the same in every optimizer that has them."""

    lr: Annotated[float, Range(ge=0)]
    weight_decay: Annotated[float, Range(ge=0)]
    momentum: Annotated[float, Range(ge=0)]


@dataclass(frozen=True, kw_only=True)
class TrainerSettings:
    max_steps: Annotated[int, Range(ge=1)]
    prompts_per_step: Annotated[int, Range(ge=1)]
    passes_per_rollout: Annotated[int, Range(ge=1)]
    minibatches: Annotated[int, Range(ge=1)]
    micro_batch_tokens: Annotated[int, Range(ge=1)]
    max_grad_norm: Annotated[float | None, Range(gt=0)]
    max_minutes: Annotated[float | None, Range(gt=0)]
    target_reward: float | None
    mask_truncated: bool
    filter_constant_groups: bool
    max_refills: Annotated[int, Range(ge=0)]
    skip_zero_advantages: bool
    importance_cap: Annotated[float | None, Range(gt=0)]
    max_bad_updates: Annotated[int, Range(ge=1)]
    preemption_signal: Literal["SIGUSR1", "SIGUSR2", "SIGHUP", "SIGCONT"] | None


@dataclass(frozen=True, kw_only=True)
class ScoringSettings:
    workers: Annotated[int | None, Range(ge=1)]
    max_error_share: Annotated[float, Range(ge=0, le=1)]
    ahead: bool
    each: dict[str, Any]
    """RewardSettings: what holds for every reward that does not say otherwise."""


@dataclass(frozen=True, kw_only=True)
class ReferenceSettings:
    path: str | None
    dtype: Literal["auto", "float32", "bfloat16"]
    device: str | None


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    every: Annotated[int | None, Range(ge=1)]
    num_prompts: Annotated[int, Range(ge=1)]
    temperature: Annotated[float, Range(ge=0)]
    max_new_tokens: Annotated[int | None, Range(ge=1)]


@dataclass(frozen=True, kw_only=True)
class CheckpointSettings:
    every: Annotated[int | None, Range(ge=1)]
    keep_last: Annotated[int, Range(ge=1)]
    keep_best: str | None


@dataclass(frozen=True, kw_only=True)
class SelfCheckSettings:
    enabled: bool
    float32_tolerance: Annotated[float, Range(gt=0)]
    bfloat16_tolerance: Annotated[float, Range(gt=0)]


@dataclass(frozen=True, kw_only=True)
class ResumeSettings:
    from_: str | None
    """The key is `resume.from`; a field cannot have the name of a Python keyword."""
    allow_changed: list[str]


@dataclass(frozen=True, kw_only=True)
class SweepSettings:
    jobs: Annotated[int | None, Range(ge=1)]
    metric: str | None
    direction: Literal["maximize", "minimize"]


@dataclass(frozen=True, kw_only=True)
class SecuritySettings:
    allow_targets: list[str]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A checked configuration with its interpolations resolved. The groups are plain dictionaries."""

    name: str
    seed: Annotated[int, Range(ge=0, le=4294967295)]
    device: str
    model: dict[str, Any]
    data: dict[str, Any]
    order: dict[str, Any]
    sampler: dict[str, Any]
    reward: dict[str, Any]
    advantage: dict[str, Any]
    pairing: dict[str, Any]
    loss: dict[str, Any]
    optimizer: dict[str, Any]
    scheduler: dict[str, Any]
    logger: dict[str, Any]
    trainer: TrainerSettings
    scoring: ScoringSettings
    reference: ReferenceSettings
    evaluation: EvaluationSettings
    checkpoint: CheckpointSettings
    self_check: SelfCheckSettings
    resume: ResumeSettings
    sweep: SweepSettings
    security: SecuritySettings


SECTIONS: dict[str, type] = {
    name: hint for name, hint in get_type_hints(TrainConfig).items() if is_dataclass(hint) and isinstance(hint, type)
}


def conf_dir() -> Path:
    """The absolute folder of conf/: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


def register() -> None:
    """Makes `train_schema` known to Hydra. Doing it twice is harmless."""
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store(name="train_schema", node=_structured(TrainConfig), provider="pggrpo")


def _structured(cls: type) -> type:
    """`cls` in the types that OmegaConf knows, every value missing: OmegaConf knows neither Annotated nor Literal."""
    hints = get_type_hints(cls)
    members: list[tuple[str, Any, Any]] = []
    for one in fields(cls):
        kind = _plain(hints[one.name])
        section = is_dataclass(kind) and isinstance(kind, type)
        members.append((one.name, kind, field(default_factory=kind) if section else field(default=MISSING)))
    return make_dataclass(cls.__name__, members)


def _plain(hint: Any) -> Any:
    if is_dataclass(hint) and isinstance(hint, type):
        keywords = any(key_of(one.name) != one.name for one in fields(hint))
        return dict[str, Any] if keywords else _structured(hint)
    if get_origin(hint) is Literal:
        return str
    if get_origin(hint) in (types.UnionType, Union):
        return reduce(operator.or_, (_plain(part) for part in get_args(hint)))
    return hint


def key_of(field_name: str) -> str:
    """The configuration's key of a field: `from` for `from_`."""
    bare = field_name.removesuffix("_")
    return bare if keyword.iskeyword(bare) else field_name


def plain(cfg: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    """`cfg` as dictionaries with interpolations resolved and without Hydra's own node; `???` stays.

    Raises ConfigError naming the key of an interpolation that cannot be resolved.
    """
    from omegaconf.errors import OmegaConfBaseException

    if not isinstance(cfg, DictConfig):
        cfg = OmegaConf.create(dict(cfg))
    try:
        container = {
            str(key): OmegaConf.to_container(cfg._get_node(key), resolve=True)
            if OmegaConf.is_config(cfg._get_node(key))
            else ("???" if OmegaConf.is_missing(cfg, key) else cfg[key])
            for key in cfg
            if key != "hydra"
        }
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "?"
        what = str(error).splitlines()[0]
        raise ConfigError(
            f"`{key}`: {what}. An interpolation ${{…}} names a key, a resolver or an environment "
            "variable that is there."
        ) from error
    return container


def brought_up_to_date(values: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration that an earlier release wrote: keys and groups that it did not know have their defaults, which must
    mean what that release did."""
    defaults = _file("train")
    sections = {name: values.get(name, {}) for name in SECTIONS}
    options = {group: option for one in defaults["defaults"] if isinstance(one, dict) for group, option in one.items()}
    groups = {name: values.get(name, _file(f"{name}/{options[name]}")) for name in SINGLE_GROUPS}
    return (
        dict(values)
        | {name: defaults[name] | dict(section) for name, section in sections.items() if isinstance(section, Mapping)}
        | {
            name: (defaults[name] if name in MAPPING_KEYS else {}) | _node_up_to_date(name, node)
            for name, node in groups.items()
            if isinstance(node, Mapping)
        }
    )


def _node_up_to_date(group: str, node: Mapping[str, Any]) -> dict[str, Any]:
    """Of a class of ours, with the keys that conf/ has for it by now."""
    module = str(node.get("_target_", "")).split(".")
    if (
        len(module) != 4
        or module[:2] != ["pggrpo_cli", group]
        or not (conf_dir() / group / f"{module[2]}.yaml").exists()
    ):
        return dict(node)
    known = _file(f"{group}/{module[2]}")
    known = known.get(group, known)  # a file with # @package _global_
    return {key: value for key, value in known.items() if key not in node and key != "defaults"} | dict(node)


def _file(name: str) -> dict[str, Any]:
    values = OmegaConf.to_container(OmegaConf.load(conf_dir() / f"{name}.yaml"), resolve=False)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def typed(cfg: DictConfig | Mapping[str, Any]) -> TrainConfig:
    """The configuration as Python objects. It must have passed check.check; check.checked does both."""
    return build(plain(cfg))


def build(values: Mapping[str, Any]) -> TrainConfig:
    """Python objects from what `plain` gives."""
    return _build(TrainConfig, values)


def _build(cls: type, values: Mapping[str, Any]) -> Any:
    hints = get_type_hints(cls)
    arguments = {}
    for one in fields(cls):
        value, hint = values[key_of(one.name)], hints[one.name]
        if one.name in SECTIONS and cls is TrainConfig:
            value = _build(hint, value)
        elif isinstance(value, int) and not isinstance(value, bool) and float in (hint, *get_args(hint)):
            value = float(value)
        arguments[one.name] = value
    return cls(**arguments)


def as_dict(config: TrainConfig) -> dict[str, Any]:
    """The configuration with its own keys: what `typed` was made from, and what config.yaml of a run holds."""
    return {key_of(one.name): _as_value(getattr(config, one.name)) for one in fields(config)}


def _as_value(value: Any) -> Any:
    if is_dataclass(value):
        return {key_of(one.name): getattr(value, one.name) for one in fields(value)}
    return value
