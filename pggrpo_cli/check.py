"""Every section and every `_target_` node against the class that describes it, before anything heavy loads."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

from omegaconf import DictConfig, OmegaConf

from pggrpo_cli import config as schema
from pggrpo_cli.class_source import NoSuchTarget, Parameters, is_ours, read_parameters
from pggrpo_cli.config import NAMED_GROUPS, NODE_SETTINGS, SINGLE_GROUPS, TrainConfig, node_keys
from pggrpo_cli.errors import ConfigError
from pggrpo_cli.filters import filter_problems
from pggrpo_cli.foreign_code import reaches_out
from pggrpo_cli.foreign_targets import foreign_problems
from pggrpo_cli.metric_names import metric_problems
from pggrpo_cli.mixture_problems import mixture_problems, sampler_problems
from pggrpo_cli.secrets_in_values import secret_problems
from pggrpo_cli.server_keys import server_problems
from pggrpo_cli.suggestions import did_you_mean

SPECIAL_KEYS = frozenset({"_target_", "_partial_", "_convert_", "_recursive_", "_args_"})
KEEPS = "pggrpo_cli.filters.Sieve"
"""What runs the file that `keep` of a data node names."""

OPTIMIZER_KEYS = "pggrpo_cli.config.OptimizerSettings"
"""Which class describes keys that mean the same in every optimizer; the optimizers themselves are torch's."""

REWARD_NAMES_TAKEN = ("chosen", "rejected", "margins", "accuracies")
"""`rewards/chosen` and its like are DPO's implicit rewards."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """A `_target_` node: what is handed to its class, and what belongs to the node itself."""

    path: str
    target: str
    arguments: Mapping[str, Any]
    settings: Mapping[str, Any]
    group: str
    partial: bool

    @property
    def key(self) -> str:
        """What names its code."""
        return f"{self.path}.path" if self.target == KEEPS else f"{self.path}._target_"

    @property
    def is_component(self) -> bool:
        """Not a node within another node."""
        return self.path.count(".") == (self.group in NAMED_GROUPS)


def check(cfg: DictConfig | Mapping[str, Any]) -> None:
    """Raises one ConfigError with a paragraph for each thing that is wrong."""
    check_values(schema.plain(cfg))


def checked(cfg: DictConfig | Mapping[str, Any]) -> TrainConfig:
    """`cfg` checked and typed."""
    values = schema.plain(cfg)
    check_values(values)
    return schema.build(values)


def check_values(values: Mapping[str, Any]) -> None:
    """`check` of what config.plain gives."""
    problems = [
        *secret_problems(values),
        *server_problems(values),
        *_section_problems(values),
        *_group_problems(values),
        *_reward_problems(values),
        *mixture_problems(values),
        *sampler_problems(values),
    ]
    problems += _rules(values)
    problems += [*filter_problems(values.get("data")), *metric_problems(values)]
    problems += [problem for node in nodes(values) for problem in _node_problems(node)]
    if problems:
        raise ConfigError("\n".join(dict.fromkeys(problems)))


def check_foreign_targets(config: TrainConfig, groups: Collection[str] = (*SINGLE_GROUPS, *NAMED_GROUPS)) -> None:
    """Targets that are not ours (torch.optim.AdamW, a user's class) against their signatures. Imports them."""
    found = [node for node in nodes(schema.as_dict(config)) if node.group in groups and not is_ours(node.target)]
    problems = [
        problem
        for node in found
        for problem in foreign_problems(node.path, node.target, node.arguments, partial=node.partial)
    ]
    if problems:
        raise ConfigError("\n".join(problems))


def foreign_nodes(values: Mapping[str, Any]) -> list[Node]:
    """Nodes that a configuration read from disk may not have unasked: a class that is neither ours nor named by our own
    conf/, a user's file or module, a server that gets a secret or is on another machine."""
    known = _targets_of_conf()
    found = [node for node in nodes(values) if node.target not in known or reaches_out(node.target, node.arguments)]
    for node in nodes(values):
        keep = node.settings.get("keep") or {}
        if node.group == "data" and keep.get("path") is not None:
            path = f"{node.path}.keep"
            found.append(Node(path=path, target=KEEPS, arguments=keep, settings={}, group="data", partial=False))
    return found


@lru_cache(maxsize=1)
def _targets_of_conf() -> frozenset[str]:
    """Every `_target_` that a file of our own conf/ names, such as torch.optim.AdamW."""
    lines = (line for file in schema.conf_dir().glob("*/*.yaml") for line in file.read_text("utf-8").splitlines())
    targets = (line.strip() for line in lines if line.strip().startswith("_target_:"))
    return frozenset(line.partition(":")[2].partition("#")[0].strip() for line in targets)


def nodes(values: Mapping[str, Any]) -> Iterator[Node]:
    """Every `_target_` node of the configuration, outer ones first."""
    for group in (*SINGLE_GROUPS, *NAMED_GROUPS):
        yield from _nodes_within(group, values.get(group), group)


def _nodes_within(path: str, value: Any, group: str) -> Iterator[Node]:
    if isinstance(value, list):
        for index, one in enumerate(value):
            yield from _nodes_within(f"{path}[{index}]", one, group)
    if not isinstance(value, Mapping):
        return
    if isinstance(value.get("_target_"), str) and value["_target_"] != "???":
        own = node_keys(path)
        yield Node(
            path=path,
            target=value["_target_"],
            arguments={key: one for key, one in value.items() if key not in SPECIAL_KEYS and key not in own},
            settings={key: one for key, one in value.items() if key in own},
            group=group,
            partial=bool(value.get("_partial_", False)),
        )
    for key, one in value.items():
        yield from _nodes_within(f"{path}.{key}", one, group)


def _section_problems(values: Mapping[str, Any]) -> Iterator[str]:
    """Our own sections: unknown, missing and wrong values, and the few rules that no type can say."""
    elsewhere = frozenset((*schema.SECTIONS, *SINGLE_GROUPS, *NAMED_GROUPS))
    top = {key: value for key, value in values.items() if key not in elsewhere}
    examples = _file_values("train")
    yield from _key_problems("", top, _parameters_of_section(TrainConfig, without=elsewhere), examples)
    for name, cls in schema.SECTIONS.items():
        section = values.get(name)
        if not isinstance(section, Mapping):
            yield f"`{name}`: is missing; it is a section with keys of its own, see conf/train.yaml."
            continue
        yield from _key_problems(name, section, _parameters_of_section(cls), examples.get(name, {}))
    run_name = values.get("name")
    if isinstance(run_name, str) and run_name != "???" and not re.fullmatch(r"[\w.-]+", run_name):
        yield f"`name`: {run_name!r} becomes part of a folder's name; allowed are letters, digits and . _ -"
    best = (values.get("checkpoint") or {}).get("keep_best")
    if isinstance(best, str) and best != "???" and not re.fullmatch(r"[^:\s]+:(min|max)", best):
        yield (
            f"`checkpoint.keep_best`: {best!r} is not a metric with its direction; allowed is METRIC:max, METRIC:min "
            "or null, for example checkpoint.keep_best=eval/reward:max."
        )


def _rules(values: Mapping[str, Any]) -> Iterator[str]:
    """What only shows when several keys are seen together, or in the form of a text."""
    trainer, sampler = values.get("trainer") or {}, values.get("sampler") or {}
    minibatches, prompts = trainer.get("minibatches"), trainer.get("prompts_per_step")
    if isinstance(minibatches, int) and isinstance(prompts, int) and minibatches > max(prompts, 1):
        yield (
            f"`trainer.minibatches`: {minibatches} is more than trainer.prompts_per_step={prompts}; a minibatch holds "
            "at least one prompt's group."
        )
    if sampler.get("temperature") == 0:
        yield (
            "`sampler.temperature`: 0 samples the same completion every time; training needs > 0. For greedy "
            "evaluation set evaluation.temperature=0."
        )
    model = values.get("model") or {}
    if (model.get("weight_dtype"), model.get("compute_dtype")) == ("bfloat16", "float32"):
        yield (
            "`model.compute_dtype`: float32 is wider than model.weight_dtype=bfloat16, which would gain nothing; use "
            "model.compute_dtype=bfloat16, or model.weight_dtype=float32."
        )
    if values.get("reward") == {}:
        yield "`reward`: there is none. Give one or several, such as reward=[exact_answer,format]."
    for key, name in (
        ("device", values.get("device")),
        ("reference.device", (values.get("reference") or {}).get("device")),
    ):
        if isinstance(name, str) and name != "???" and not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
            yield f"`{key}`: {name!r} is no device; allowed are auto, cpu, cuda, cuda:<number>."
    for key, text in (
        ("resume.from", (values.get("resume") or {}).get("from")),
        ("model.chat_template", (values.get("model") or {}).get("chat_template")),
        ("reference.path", (values.get("reference") or {}).get("path")),
    ):
        if text == "":
            yield f"`{key}`: is empty; write {key}=null for none."


def _reward_problems(values: Mapping[str, Any]) -> Iterator[str]:
    """scoring.each, and what the keys of a reward mean together."""
    scoring, rewards = values.get("scoring"), values.get("reward")
    if not isinstance(scoring, Mapping) or not isinstance(rewards, Mapping):
        return
    each = scoring.get("each")
    if isinstance(each, Mapping):
        examples = _file_values("train").get("scoring", {}).get("each", {})
        yield from _key_problems("scoring.each", each, read_parameters(NODE_SETTINGS["reward"]), examples)
    for path, node in (("scoring.each", each), *((f"reward.{name}", one) for name, one in rewards.items())):
        if not isinstance(node, Mapping):
            continue
        clip, gate = node.get("clip"), node.get("gate")
        if isinstance(clip, list) and not (len(clip) == 2 and clip[0] <= clip[1]):
            yield f"`{path}.clip`: {clip} is not [lowest, highest]; for example {path}.clip=[-1,1], or null for none."
        if isinstance(gate, str) and (gate not in rewards or path == f"reward.{gate}"):
            others = ", ".join(str(name) for name in rewards if path != f"reward.{name}") or "none"
            meant = did_you_mean(gate, rewards)
            yield f"`{path}.gate`: {gate!r} is no other reward of this run.{meant} The others: {others}."


def _parameters_of_section(cls: type, without: frozenset[str] = frozenset()) -> Parameters:
    found = read_parameters(f"{cls.__module__}.{cls.__name__}").by_name
    return Parameters(by_name={schema.key_of(name): one for name, one in found.items() if name not in without})


def _group_problems(values: Mapping[str, Any]) -> Iterator[str]:
    """Groups without a class, and named groups without names."""
    for group in SINGLE_GROUPS:
        yield from _without_target(group, values.get(group), group)
    for group in NAMED_GROUPS:
        named = values.get(group)
        if not isinstance(named, Mapping):
            yield f"`{group}`: is no mapping from names to classes; choose with {group}=[NAME,…], or {group}=[] for none."
            continue
        if "_target_" in named:
            yield (
                f"`{group}`: holds a class where names are expected; in the file put it below a name, "
                f"`{group}: {{mine: {{_target_: …}}}}` (or `mine: {{_target_: …}}` in a file with # @package {group})."
            )
            continue
        for name, one in named.items():
            yield from _without_target(f"{group}.{name}", one, group)
            if group == "reward" and name in REWARD_NAMES_TAKEN:
                yield f"`reward.{name}`: this name is taken by the metric rewards/{name} of dpo; choose another one."


def _without_target(path: str, value: Any, group: str) -> Iterator[str]:
    if not (isinstance(value, Mapping) and isinstance(value.get("_target_"), str) and value["_target_"] != "???"):
        options = ", ".join(sorted(file.stem for file in (schema.conf_dir() / group).glob("*.yaml")))
        yield f"`{path}`: names no class (_target_). Choose one with {group}=NAME ({options}), or write your own."


def _node_problems(node: Node) -> Iterator[str]:
    group_examples = _file_values("train").get(node.group, {})
    also = sorted(node_keys(node.path))
    if also:
        described = read_parameters(NODE_SETTINGS[node.group])
        # What a reward does not say stands in scoring.each, what a source of a mixture does not say in `data`.
        rest_elsewhere = node.group == "reward" or not node.is_component
        yield from _key_problems(node.path, node.settings, described, group_examples, partial=rest_elsewhere)
    if not is_ours(node.target):
        top = node.target.partition(".")[0]
        if not top.isidentifier() or find_spec(top) is None:
            yield (
                f"`{node.path}._target_`: there is no Python module {top!r} for {node.target!r}. Install it, put its "
                "folder on PYTHONPATH, or start where the file lies."
            )
        if node.is_component and node.group == "optimizer":
            shared = read_parameters(OPTIMIZER_KEYS)
            given = {key: value for key, value in node.arguments.items() if key in shared.by_name}
            yield from _key_problems(node.path, given, shared, group_examples, partial=True)
        return
    try:
        parameters = read_parameters(node.target)
    except NoSuchTarget as error:
        yield f"`{node.path}._target_`: {error}"
        return
    examples = _file_values(f"{node.group}/{node.target.split('.')[-2]}")
    if node.group in NAMED_GROUPS:
        examples = examples.get(node.path.rpartition(".")[2]) or next(iter(examples.values()), {})
    owner = node.target.rpartition(".")[2]
    yield from _key_problems(node.path, node.arguments, parameters, examples, owner, node.partial, also)


def _key_problems(
    path: str,
    values: Mapping[str, Any],
    parameters: Parameters,
    examples: Mapping[str, Any],
    owner: str = "",
    partial: bool = False,
    also: list[str] | None = None,
) -> Iterator[str]:
    """Unknown keys, missing keys and values that do not fit. `also`: further keys that a reader may have meant."""
    prefix = f"{path}." if path else ""
    known = [*parameters.by_name, *(also or [])]
    for key, value in values.items():
        if key not in parameters.by_name:
            if not parameters.open:
                who = owner or path or "the configuration"
                yield (
                    f"`{prefix}{key}`: {who} has no such key.{did_you_mean(str(key), known)} "
                    f"It has {', '.join(known) or 'none'}."
                )
            continue
        kind = parameters.by_name[key].type
        is_node = isinstance(value, Mapping) and "_target_" in value
        if isinstance(value, str) and value == "???":
            yield f"`{prefix}{key}`: is not set and has no default; give {prefix}{key}=VALUE, {kind.allowed()}."
        elif not is_node and (problem := kind.problem(value)) is not None:
            such = _example(prefix, key, examples, kind)
            quoted = kind.in_quotes(f"{prefix}{key}", value)
            yield f"`{prefix}{key}`: {problem}; allowed is {kind.allowed()}{such}.{quoted}"
    for key, parameter in parameters.by_name.items():
        if parameter.required and key not in values and not partial:
            who = owner or path or "the configuration"
            yield (
                f"`{prefix}{key}`: is missing; {who} needs it: {parameter.type.allowed()}"
                f"{_example('+' + prefix, key, examples, parameter.type)}."
            )


def _example(prefix: str, key: str, examples: Mapping[str, Any], kind: Any) -> str:
    """What to do: the default as an example, where there is one."""
    value = examples.get(key)
    if value is None or isinstance(value, (Mapping, list)) or "$" in str(value) or kind.problem(value) is not None:
        return ""
    return f", for example {prefix}{key}={str(value).lower() if isinstance(value, bool) else value}"


@lru_cache(maxsize=64)
def _file_values(name: str) -> dict[str, Any]:
    """The values of one of our own configuration files; empty if there is none."""
    file = schema.conf_dir() / f"{name}.yaml"
    if not file.is_file():
        return {}
    values = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    return {str(key): value for key, value in values.items()} if isinstance(values, dict) else {}
