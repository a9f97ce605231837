"""Whole groups as the trainer sees them: sampled, scored, compared. For `pggrpo generate --group`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
import transformers

from pggrpo_cli.batching import TrainGroup
from pggrpo_cli.check import check_foreign_targets
from pggrpo_cli.config import TrainConfig
from pggrpo_cli.devices import prepare_device, resolve_device
from pggrpo_cli.errors import CheckpointError, DataError
from pggrpo_cli.generating.answering import chosen_rows
from pggrpo_cli.generating.given_prompts import as_message, places
from pggrpo_cli.instantiate import component
from pggrpo_cli.loading import load_policy
from pggrpo_cli.policy import Policy
from pggrpo_cli.prompts import Renderer, format_of, prompt_room
from pggrpo_cli.protocols import Advantage, OpenSampler
from pggrpo_cli.report.samples_file import Completion, Samples
from pggrpo_cli.rollouts import has_signal, score_groups, scored_meanwhile, train_groups
from pggrpo_cli.row_loading import load_rows
from pggrpo_cli.run_directory import SAMPLES
from pggrpo_cli.scoring.scorer import Scorer, open_scorer
from pggrpo_cli.subject import SCORES, Subject
from pggrpo_cli.together import check_together
from pggrpo_cli.types import Dataset, DrawKey, Prompt, RewardContext, Row, RunContext, ScoredGroup


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupWishes:
    """Which groups; see `pggrpo generate --help`."""

    rows: str
    split: str
    given: Sequence[Row] | None
    """Rows of a file in place of the run's."""
    step: int | None
    """Those of this step of the run, sampled again."""
    seed: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class SeenGroup:
    """A scored group and what is trained of it. Numbers of completions count within the group."""

    scored: ScoredGroup
    signal: bool
    trained: frozenset[int]
    pairs: tuple[tuple[int, int], ...]
    """(chosen, rejected)"""
    recorded: tuple[str, ...] | None
    """The completions that the run sampled, if this is a group of one of its steps."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    groups: list[SeenGroup]
    weights: Mapping[str, float]
    compares: bool
    """Whether the loss needs pairs."""


@dataclass(frozen=True, slots=True)
class _Place:
    """A row and where it stands."""

    row: Row
    index: int
    """In its split."""
    ordinal: int
    """In the step."""
    recorded: tuple[str, ...] | None = None
    prompt: str | None = None
    """As the run rendered it."""


def see_groups(subject: Subject, wishes: GroupWishes, say: Callable[[str], None]) -> Seen:
    """Raises PggrpoError for a configuration, data or rewards that cannot be used."""
    config = subject.config
    check_foreign_targets(config, SCORES)
    transformers.utils.logging.disable_progress_bar()
    device = resolve_device(config.device)
    prepare_device(device)
    loss, sampler = component(config.loss, "loss"), component(config.sampler, "sampler")
    data, chosen = _chosen(subject, wishes)
    check_together(config, loss, sampler, data)
    with ExitStack() as stack:
        context = RewardContext(run_dir=None, device=str(device), seed=config.seed)
        scorer = stack.enter_context(open_scorer(config, context))
        scorer.dry_run([place.row for place in chosen[:4]], format_of(config.data))
        policy, source = load_policy(config, device)
        prompts = _prompts(config, policy, chosen)
        opened = stack.enter_context(sampler.open(_context(device, config.seed)))
        step = subject.step + 1
        count = f"{len(prompts)} group" + ("s" if len(prompts) > 1 else "")
        say(f"{subject.label} ({source}): {count} of {sampler.group_size}, sampled as in step {step}")
        seed = config.seed if wishes.seed is None else wishes.seed
        draws = DrawKey(seed=seed, purpose="rollout", step=step)
        scored = _scored(opened, policy, prompts, chosen, draws, scorer, component(config.advantage, "advantage"))
        for words in [*scorer.notes, *scorer.warnings]:
            say(words)
    trained = train_groups(
        scored, loss, component(config.pairing, "pairing"), mask_truncated=config.trainer.mask_truncated
    )
    groups = [_seen(*one) for one in zip(scored, trained, chosen, strict=True)]
    return Seen(groups=groups, weights=scorer.weights, compares=loss.needs_pairs)


def _scored(
    sampler: OpenSampler,
    policy: Policy,
    prompts: Sequence[Prompt],
    chosen: Sequence[_Place],
    draws: DrawKey,
    scorer: Scorer,
    advantage: Advantage,
) -> list[ScoredGroup]:
    """What the trainer makes of these prompts. Those that do not follow each other in the step are sampled one by one:
    their random numbers depend on their ordinal."""
    scoring = scorer.begin()
    if [place.ordinal for place in chosen] == list(range(len(chosen))):
        groups = sampler.sample(policy, prompts, draws, scored_meanwhile(scoring, draws.step))
    else:
        groups = []
        for prompt, place in zip(prompts, chosen, strict=True):
            groups += sampler.sample(policy, [prompt], replace(draws, first_ordinal=place.ordinal))
    return score_groups(groups, scoring, advantage, draws.step)[0]


def _seen(scored: ScoredGroup, trained: TrainGroup, place: _Place) -> SeenGroup:
    samples = [row.sample for row in trained.rows]
    return SeenGroup(
        scored=scored,
        signal=has_signal(scored),
        trained=frozenset(samples),
        pairs=tuple((samples[chosen], samples[rejected]) for chosen, rejected in trained.pairs),
        recorded=place.recorded,
    )


def _chosen(subject: Subject, wishes: GroupWishes) -> tuple[Dataset, list[_Place]]:
    if wishes.step is not None:
        return _of_step(subject, wishes.step, wishes.rows)
    if wishes.given is not None:
        rows = [as_message(row) if subject.config.data.get("as_chat") else row for row in wishes.given]
        numbers = places(wishes.rows, len(rows), "rows in the file")
        data = Dataset(train=[rows[number] for number in numbers], evaluation=[])
        found = list(data.train)
    else:
        data, found, numbers = chosen_rows(subject.config, wishes.split, wishes.rows)
    return data, [_Place(row, index, ordinal) for ordinal, (row, index) in enumerate(zip(found, numbers, strict=True))]


def _of_step(subject: Subject, step: int, rows: str) -> tuple[Dataset, list[_Place]]:
    """Groups of a step that the run has done, by their place in it."""
    assert subject.run_dir is not None
    groups: list[list[Completion]] = []
    for one in Samples(subject.run_dir / SAMPLES).read(step, held_out=False):
        if one.sample == 0:
            groups.append([])
        if groups:
            groups[-1].append(one)
    if not groups:
        raise CheckpointError(f"`--step`: {subject.run_dir / SAMPLES} has no completions of step {step}.")
    numbers = places(rows, len(groups), f"groups in step {step}")
    data = load_rows(subject.config)[0]
    found = []
    for number in numbers:
        first = groups[number][0]
        if not 0 <= first.prompt_index < len(data.train):
            raise DataError(
                f"`data`: there is no row {first.prompt_index}, which step {step} had: the data has changed."
            )
        recorded = tuple(one.completion for one in groups[number])
        found.append(_Place(data.train[first.prompt_index], first.prompt_index, number, recorded, first.prompt))
    return data, found


def _prompts(config: TrainConfig, policy: Policy, chosen: Sequence[_Place]) -> list[Prompt]:
    limit: Any = config.sampler.get("max_new_tokens") or 0
    renderer = Renderer(
        tokenizer=policy.tokenizer,
        prompt_format=format_of(config.data),
        context_limit=prompt_room(policy.context_length, limit, "sampler.max_new_tokens"),
        end_token_ids=policy.end_token_ids,
    )
    prompts = []
    for place in chosen:
        prompt = renderer.fitted(place.row, place.index)
        if prompt is None:
            raise DataError(
                f"{place.row.source or f'row {place.index}'}: the prompt is too long for the model's context and is left out "
                "in training (data.overlong). Choose others with --rows."
            )
        if place.prompt is not None and prompt.text != place.prompt:
            raise DataError(f"`data`: row {place.index} is not the prompt that the run had: the data has changed.")
        prompts.append(prompt)
    return prompts


def _context(device: torch.device, seed: int) -> RunContext:
    return RunContext(run_dir=None, device=device, seed=seed, run_id="generate", resumed=False)  # type: ignore[arg-type]
