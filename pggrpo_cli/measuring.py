"""`pggrpo eval`: greedy and sampled completions of held-out prompts by one model and by the one it is compared with."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import transformers

from pggrpo_cli.check import check_foreign_targets, check_values
from pggrpo_cli.comparison import Method, Sampled, by_prompt, differences, parts, summary
from pggrpo_cli.config import MAPPING_KEYS, TrainConfig, as_dict, build
from pggrpo_cli.devices import prepare_device, resolve_device
from pggrpo_cli.errors import ConfigError, DataError, UsageError
from pggrpo_cli.estimates import Interval
from pggrpo_cli.instantiate import component
from pggrpo_cli.loading import held_out_sampler, load_policy, render
from pggrpo_cli.prompts import format_of
from pggrpo_cli.rollouts import samples_of
from pggrpo_cli.row_loading import load_rows
from pggrpo_cli.scoring.scorer import Scorer, open_scorer
from pggrpo_cli.subject import Subject
from pggrpo_cli.types import Dataset, DrawKey, Prompt, RewardContext, RolloutGroup, Row, RunContext

GREEDY, SAMPLED = "greedy", "sampled"
RESAMPLES = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Wishes:
    """What is to be measured; see `pggrpo eval --help`."""

    samples: int
    ks: Sequence[int]
    solved_at: float
    prompts: int | None
    split: str
    by: str | None
    base: str | None
    confidence: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """Numbers by model, the subject last; `completions` [P] of the subject and the base."""

    subject: str
    prompts: int
    confidence: float
    numbers: dict[str, dict[str, Interval]]
    difference: dict[str, Interval]
    by: str | None
    by_part: dict[str, dict[str, dict[str, Interval]]]
    completions: list[dict[str, Any]]

    def as_json(self, *, completions: bool) -> dict[str, Any]:
        """NaN as null."""
        found = {
            "subject": self.subject,
            "prompts": self.prompts,
            "confidence": self.confidence,
            "numbers": {label: _plain(numbers) for label, numbers in self.numbers.items()},
            "difference": _plain(self.difference),
            "by": self.by,
            "parts": {
                key: {label: _plain(one) for label, one in models.items()} for key, models in self.by_part.items()
            },
        }
        return found | ({"completions": self.completions} if completions else {})


@dataclass(frozen=True, slots=True)
class _Model:
    """What one model did: by kind (greedy, sampled), of the prompts that both models can take."""

    label: str
    prompts: dict[int, Prompt]
    """By the row's position."""
    groups: dict[str, dict[int, RolloutGroup]]
    sampled: dict[str, dict[int, dict[str, Any]]]
    """By kind, then by row: rewards, terms, lengths, truncated of its completions."""


def measure(subject: Subject, wishes: Wishes, say: Callable[[str], None]) -> Report:
    """Raises PggrpoError for a configuration, data or rewards that cannot be used."""
    config = subject.config
    check_foreign_targets(config)
    transformers.utils.logging.disable_progress_bar()
    device = resolve_device(config.device)
    prepare_device(device)
    rows = _rows(load_rows(config)[0], wishes)
    models = [(label, config_of) for label, config_of in _compared(subject, wishes)]
    with ExitStack() as stack:
        scorer = stack.enter_context(
            open_scorer(config, RewardContext(run_dir=None, device=str(device), seed=config.seed))
        )
        scorer.dry_run(rows[:4], format_of(config.data))
        context = RunContext(run_dir=None, device=device, seed=config.seed, run_id="eval", resumed=False)  # type: ignore[arg-type]
        done = []
        for label, one in models:
            done.append(_completions(label, one, context, rows, scorer, wishes, say))
            gc.collect()  # the weights of one model before those of the next
        for words in scorer.warnings:
            say(words)
    return _report(done, wishes, config.seed, rows)


def _rows(data: Dataset, wishes: Wishes) -> list[Row]:
    rows = data.evaluation if wishes.split == "evaluation" else data.train
    if not rows:
        raise DataError(
            "`data`: holds no rows out. Give data.eval_size=…, or data.eval_path=… where the data has it, or --split train."
        )
    if wishes.by is not None and not any(wishes.by in row.columns for row in rows):
        there = ", ".join(map(str, rows[0].columns)) or "none"
        raise UsageError(f"`--by`: the rows have no column {wishes.by!r}; they have {there}.")
    return list(rows[: wishes.prompts])


def _compared(subject: Subject, wishes: Wishes) -> list[tuple[str, TrainConfig]]:
    """The base first, if there is one."""
    own = (subject.label, subject.config)
    if wishes.base == "none" or (wishes.base is None and subject.base is None):
        return [own]
    values = as_dict(subject.config)
    keys = {key: value for key, value in values["model"].items() if key in MAPPING_KEYS["model"]}
    if wishes.base is None:
        node: Mapping[str, Any] = dict(subject.base or {})
        label = "before training"
    else:
        node, label = {"_target_": "pggrpo_cli.model.hf.Hf", "path": wishes.base, "revision": None} | keys, wishes.base
    values = values | {"model": dict(node)}
    check_values(values)
    return [(label, build(values)), own]


def _completions(
    label: str,
    config: TrainConfig,
    context: RunContext,
    rows: Sequence[Row],
    scorer: Scorer,
    wishes: Wishes,
    say: Callable[[str], None],
) -> _Model:
    """Loads the model, lets it answer, and scores that."""
    policy, source = load_policy(config, context.device)
    template = component(config.sampler, "sampler")
    limit = config.sampler.get("max_new_tokens") or config.evaluation.max_new_tokens
    if limit is None:
        raise ConfigError("`evaluation.max_new_tokens`: is null, and this sampler has no length of its own. Set it.")
    rendered = render(config, policy, rows, limit, "sampler.max_new_tokens")
    kinds = {GREEDY: (1, 0.0)} | ({SAMPLED: (wishes.samples, _temperature(config))} if wishes.samples else {})
    prompts = {prompt.index: prompt for prompt in rendered.prompts}
    groups: dict[str, dict[int, RolloutGroup]] = {}
    scored: dict[str, dict[int, dict[str, Any]]] = {}
    for kind, (size, temperature) in kinds.items():
        say(f"{label} ({source}): {len(prompts)} prompts × {size}, {kind}")
        sampler = held_out_sampler(template, size, temperature, None if "max_new_tokens" in config.sampler else limit)
        with sampler.open(context) as opened:
            draws = DrawKey(seed=config.seed, purpose="evaluation", step=0)
            found = opened.sample(policy, list(prompts.values()), draws)
        groups[kind] = dict(zip(prompts, found, strict=True))
        scored[kind] = dict(zip(prompts, _scored(found, scorer), strict=True))
    return _Model(label, prompts, groups, scored)


def _temperature(config: TrainConfig) -> float:
    temperature: float = config.sampler["temperature"]
    return temperature or 1.0


def _scored(groups: Sequence[RolloutGroup], scorer: Scorer) -> list[dict[str, Any]]:
    """A dictionary a group: rewards, terms, lengths, truncated, of its completions in order."""
    scores = scorer.score(samples_of(groups, 0))
    result, start = [], 0
    for group in groups:
        span = slice(start, start + len(group.rollouts))
        result.append(
            {
                "rewards": scores.rewards[span],
                "terms": {name: values[span] for name, values in scores.terms.items()},
                "lengths": [len(rollout.completion_ids) for rollout in group.rollouts],
                "truncated": [rollout.finish_reason == "length" for rollout in group.rollouts],
            }
        )
        start = span.stop
    return result


def _report(models: Sequence[_Model], wishes: Wishes, seed: int, rows: Sequence[Row]) -> Report:
    common = [index for index in models[-1].prompts if all(index in model.prompts for model in models)]
    method = Method(
        ks=wishes.ks, solved_at=wishes.solved_at, confidence=wishes.confidence, resamples=RESAMPLES, seed=seed
    )
    values = {model.label: _by_prompt(model, common, method) for model in models}
    ours = values[models[-1].label]
    by_part: dict[str, dict[str, dict[str, Interval]]] = {}
    if wishes.by is not None:
        keys = [str(rows[index].columns.get(wishes.by)) for index in common]
        for model in models:
            for key, numbers in parts(keys, values[model.label], method).items():
                by_part.setdefault(key, {})[model.label] = numbers
    return Report(
        subject=models[-1].label,
        prompts=len(common),
        confidence=wishes.confidence,
        numbers={label: summary(one, method) for label, one in values.items()},
        difference=differences(ours, values[models[0].label], method) if len(models) > 1 else {},
        by=wishes.by,
        by_part=by_part,
        completions=[_shown(index, models) for index in common],
    )


def _by_prompt(model: _Model, common: Sequence[int], method: Method) -> dict[str, list[float]]:
    values: dict[str, list[float]] = {}
    for kind, scored in model.sampled.items():
        chosen = [scored[index] for index in common]
        sampled = Sampled(
            rewards=[one["rewards"] for one in chosen],
            terms={name: [one["terms"][name] for one in chosen] for name in (chosen[0]["terms"] if chosen else ())},
            lengths=[one["lengths"] for one in chosen],
            truncated=[one["truncated"] for one in chosen],
        )
        values |= by_prompt(sampled, kind, method)
    return values


def _shown(index: int, models: Sequence[_Model]) -> dict[str, Any]:
    """A prompt with everything that was said to it and what that was worth."""
    said = [
        {
            "model": model.label,
            "kind": kind,
            "completion": rollout.text,
            "finish_reason": rollout.finish_reason,
            "reward": _finite(scored[index]["rewards"][place]),
            "reward_terms": {name: terms[place] for name, terms in scored[index]["terms"].items()},
        }
        for model in models
        for kind, scored in model.sampled.items()
        for place, rollout in enumerate(model.groups[kind][index].rollouts)
    ]
    prompt = models[-1].prompts[index]
    return {"row": index, "source": prompt.row.source, "prompt": prompt.text, "said": said}


def _plain(numbers: Mapping[str, Interval]) -> dict[str, dict[str, float | None]]:
    return {name: {key: _finite(value) for key, value in asdict(one).items()} for name, one in numbers.items()}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
