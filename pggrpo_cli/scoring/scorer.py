"""The named rewards of a run: called, scaled, clipped, gated, weighted and summed. One that fails never silently becomes 0."""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from pggrpo_cli.config import MAPPING_KEYS, RewardSettings, TrainConfig
from pggrpo_cli.errors import RewardTraceback, UserCodeError
from pggrpo_cli.instantiate import component
from pggrpo_cli.prompts import PromptFormat, apply_format
from pggrpo_cli.scoring.answers import Answer, Answers, call, described, opened
from pggrpo_cli.scoring.output import Output
from pggrpo_cli.scoring.pool import IsolatedReward, Pool, default_workers
from pggrpo_cli.types import RewardContext, Row, Sample, ScoreError


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredSamples:
    """B samples."""

    rewards: list[float]
    """[B] weighted sum of the rewards that apply; NaN where none does."""
    terms: dict[str, list[float | None]]
    """As the rewards gave them, [B] by name."""
    values: dict[str, list[float | None]]
    """Scaled, clipped and gated, not yet weighted: [B] by name. rewards = Σ weight · value."""
    errors: int = 0
    """Completions that a reward could not score, whatever became of them."""
    metrics: dict[str, float] = field(default_factory=dict)
    """What the rewards log beside their scores."""
    columns: dict[str, list[Any]] = field(default_factory=dict)
    """What they say of each sample, [B] each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedReward:
    """A reward, here (an object with `score`) or in a process of its own, and the keys of its node."""

    reward: Any
    settings: RewardSettings


class Scorer:
    """Rewards by name. With `pool`, those that are isolated run in its processes."""

    def __init__(
        self, rewards: Mapping[str, NamedReward], pool: Pool | None = None, max_error_share: float = 1.0
    ) -> None:
        self._rewards, self._pool, self._max_error_share = dict(rewards), pool, max_error_share
        self.weights = {name: one.settings.weight for name, one in rewards.items()}
        self.warnings: list[str] = []
        """To be shown once each; whoever shows them clears the list."""
        self._warned: set[str] = set()

    def score(self, samples: Sequence[Sample]) -> ScoredSamples:
        """Raises UserCodeError, with the reward's own error as cause, where `on_error` is raise or too many failed."""
        rounds = {name: _Round(name, one, samples, self._pool) for name, one in self._rewards.items()}
        terms: dict[str, list[float | None]] = {}
        metrics: dict[str, float] = {}
        columns: dict[str, list[Any]] = {}
        errors = 0
        for name, one in rounds.items():
            answers = one.finish()
            failed = [index for index, answer in enumerate(answers.answers) if isinstance(answer, ScoreError)]
            errors += len(failed)
            terms[name] = self._settle(name, answers.answers, failed, samples)
            metrics |= answers.metrics
            columns |= {f"{name}.{column}": list(values) for column, values in answers.columns.items()}
            for note in answers.notes:
                self._warn_once(f"note: `reward.{name}`: {note}")
        values = self._values(terms)
        return ScoredSamples(
            rewards=self._sums(values, len(samples)),
            terms=terms,
            values=values,
            errors=errors,
            metrics=metrics,
            columns=columns,
        )

    def _warn_once(self, words: str) -> None:
        if words not in self._warned:
            self._warned.add(words)
            self.warnings.append(words)

    @property
    def notes(self) -> list[str]:
        """What the rewards say of themselves, for the plan; those of other processes once they have been called."""
        notes = {name: described(one.reward) for name, one in self._rewards.items()}
        if self._pool is not None:
            notes |= self._pool.notes
        return [f"reward.{name}: {words}" for name, words in notes.items() if words]

    def dry_run(self, rows: Sequence[Row], prompt_format: PromptFormat) -> None:
        """Calls every reward on real rows with made-up completions, so that a broken one fails before a model loads."""
        samples: list[Sample] = []
        for index, row in enumerate(rows):
            prompt = apply_format(row, prompt_format).prompt
            for text in ("", "0", str(row.columns.get("answer", "1"))):
                sample = Sample(
                    prompt=prompt,
                    completion=text,
                    completion_ids=[0],
                    finish_reason="stop",
                    columns=row.columns,
                    group=index,
                )
                samples.append(sample)
        if samples:
            self.score(samples)

    def _settle(
        self, name: str, answers: Sequence[Answer], failed: Sequence[int], samples: Sequence[Sample]
    ) -> list[float | None]:
        """What `on_error` makes of the answers."""
        on_error = self._rewards[name].settings.on_error
        asked = sum(answer is not None for answer in answers)
        if failed and (on_error == "raise" or len(failed) > self._max_error_share * asked):
            raise _blamed(name, answers, failed, samples, asked)
        if failed and name not in self._warned:
            self._warned.add(name)
            first = answers[failed[0]]
            assert isinstance(first, ScoreError)
            self.warnings.append(
                f"warning: `reward.{name}`: {first.message} (for the completion {samples[failed[0]].completion[:80]!r}); "
                f"on_error={on_error}: the run goes on, reward/errors counts them.\n{first.traceback}".rstrip()
            )
        instead = None if isinstance(on_error, str) else float(on_error)
        return [instead if isinstance(answer, ScoreError) else answer for answer in answers]

    def _values(self, terms: Mapping[str, Sequence[float | None]]) -> dict[str, list[float | None]]:
        """Scale, then clip, then gate; the gate looks at the other reward before that one's own gate."""
        ungated = {
            name: [None if one is None else self._rewards[name].settings.scaled(one) for one in values]
            for name, values in terms.items()
        }
        return {name: self._gated(name, ungated) for name in ungated}

    def _gated(self, name: str, ungated: Mapping[str, list[float | None]]) -> list[float | None]:
        gate = self._rewards[name].settings.gate
        if gate is None:
            return ungated[name]
        return [
            None if value is None else value if (key or 0.0) > 0 else 0.0
            for value, key in zip(ungated[name], ungated[gate], strict=True)
        ]

    def _sums(self, values: Mapping[str, Sequence[float | None]], count: int) -> list[float]:
        sums: list[float] = []
        for index in range(count):
            applied = [self.weights[name] * value for name in values if (value := values[name][index]) is not None]
            sums.append(math.fsum(applied) if applied else math.nan)
        return sums


class _Round:
    """One reward's calls for one set of samples. Those in other processes begin at once."""

    def __init__(self, name: str, named: NamedReward, samples: Sequence[Sample], pool: Pool | None) -> None:
        self._reward, self._count = named.reward, len(samples)
        settings = named.settings
        self._places = [index for index, sample in enumerate(samples) if settings.applies(sample)]
        size = settings.batch_size or max(1, len(self._places))
        chunks = [self._places[start : start + size] for start in range(0, len(self._places), size)]
        self._calls = [[samples[place] for place in chunk] for chunk in chunks]
        self._futures: list[Future[Answers]] = []
        if isinstance(self._reward, IsolatedReward):
            assert pool is not None
            self._futures = [pool.submit(self._reward, chunk) for chunk in self._calls]

    def finish(self) -> Answers:
        """All of them, in the order of the samples."""
        if self._futures:
            parts = [future.result() for future in self._futures]
        else:
            with _random_state_kept():
                parts = [call(self._reward, chunk) for chunk in self._calls]
        answers: list[Answer] = [None] * self._count
        given = [answer for part in parts for answer in part.answers]
        for place, answer in zip(self._places, given, strict=True):
            answers[place] = answer
        metrics: dict[str, list[float]] = {}
        columns: dict[str, list[Any]] = {}
        for part, chunk in zip(parts, self._chunks(), strict=True):
            for name, value in part.metrics.items():
                metrics.setdefault(name, []).append(value)
            for name, values in part.columns.items():
                column = columns.setdefault(name, [None] * self._count)
                for place, value in zip(chunk, values, strict=False):
                    column[place] = value
        means = {name: math.fsum(values) / len(values) for name, values in metrics.items()}
        notes = [note for part in parts for note in part.notes]
        return Answers(answers=answers, metrics=means, columns=columns, notes=notes)

    def _chunks(self) -> Iterator[list[int]]:
        start = 0
        for one in self._calls:
            yield self._places[start : start + len(one)]
            start += len(one)


@contextmanager
def open_scorer(config: TrainConfig, context: RewardContext) -> Iterator[Scorer]:
    """The rewards of a configuration, opened; processes are there for those that are isolated, and end with it."""
    with ExitStack() as stack:
        rewards: dict[str, NamedReward] = {}
        pool: Pool | None = None
        for name, node in config.reward.items():
            settings = reward_settings(config, name)
            if settings.isolated:
                if pool is None:
                    workers = config.scoring.workers or default_workers()
                    pool = stack.enter_context(Pool(workers, context, Output(context.run_dir)))
                rewards[name] = NamedReward(
                    reward=IsolatedReward(name=name, node=node, timeout_s=settings.timeout_s), settings=settings
                )
            else:
                working = stack.enter_context(opened(component(node, f"reward.{name}"), name, context))
                rewards[name] = NamedReward(reward=working, settings=settings)
        yield Scorer(rewards, pool, config.scoring.max_error_share)


def reward_settings(config: TrainConfig, name: str) -> RewardSettings:
    """The keys of a reward's node, over those of scoring.each."""
    own = {key: value for key, value in config.reward[name].items() if key in MAPPING_KEYS["reward"]}
    return RewardSettings(**config.scoring.each | own)


def _blamed(
    name: str, answers: Sequence[Answer], failed: Sequence[int], samples: Sequence[Sample], asked: int
) -> UserCodeError:
    first = answers[failed[0]]
    assert isinstance(first, ScoreError)
    share = f" {len(failed)} of {asked} failed." if len(failed) > 1 else ""
    trace = " Its traceback stands above." if first.traceback else ""
    error = UserCodeError(
        f"`reward.{name}`: {first.message} (for the completion {samples[failed[0]].completion[:80]!r}).{share}{trace}"
    )
    error.__cause__ = RewardTraceback(first.traceback) if first.traceback else None
    return error


@contextmanager
def _random_state_kept() -> Iterator[None]:
    """Whatever a reward does to the global generators, training does not notice."""
    state = random.getstate()
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    numpy_state = None if numpy is None else numpy.random.get_state()
    torch_state = None if torch is None else torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(state)
        if numpy is not None:
            numpy.random.set_state(numpy_state)
        if torch is not None:
            torch.set_rng_state(torch_state)
