"""The named rewards of a run: called, scaled, clipped, gated, weighted and summed. One that fails never silently becomes 0."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from pggrpo_cli.config import MAPPING_KEYS, RewardSettings, TrainConfig
from pggrpo_cli.errors import RewardTraceback, Unavailable, UserCodeError
from pggrpo_cli.instantiate import component
from pggrpo_cli.prompts import PromptFormat, apply_format
from pggrpo_cli.scoring.answers import Answer, Answers, described, opened
from pggrpo_cli.scoring.calls import Calls, NamedReward
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
    metrics: dict[str, float] = field(default_factory=dict)
    """What the rewards log beside their scores."""
    columns: dict[str, list[Any]] = field(default_factory=dict)
    """What they say of each sample, [B] each."""
    failures: dict[str, dict[int, ScoreError]] = field(default_factory=dict)
    """By name and place: what could not be scored, and why."""
    seconds: dict[str, float] = field(default_factory=dict)
    """By name, that the reward was at work, in whatever processes."""

    @property
    def errors(self) -> int:
        """Completions that a reward could not score, whatever became of them."""
        return sum(len(failed) for failed in self.failures.values())


class Scorer:
    """Rewards by name. With `pool`, those that are isolated run in its processes."""

    def __init__(
        self,
        rewards: Mapping[str, NamedReward],
        pool: Pool | None = None,
        max_error_share: float = 1.0,
        ahead: bool = True,
    ) -> None:
        self._rewards, self._pool, self._max_error_share = dict(rewards), pool, max_error_share
        self._ahead = ahead
        self.weights = {name: one.settings.weight for name, one in rewards.items()}
        self.warnings: list[str] = []
        """To be shown once each; whoever shows them clears the list."""
        self._warned: set[str] = set()

    def begin(self) -> Scoring:
        """The scoring of a step whose completions come group after group."""
        return Scoring(self, {name: Calls(one, self._pool) for name, one in self._rewards.items()}, self._ahead)

    def score(self, samples: Sequence[Sample]) -> ScoredSamples:
        """Raises UserCodeError, with the reward's own error as cause, where `on_error` is raise or too many failed;
        Unavailable where all of these may be otherwise later."""
        return self.begin().finish(samples)

    def settled(self, answers: Mapping[str, Answers], samples: Sequence[Sample]) -> ScoredSamples:
        """What becomes of the rewards' answers. Raises like score."""
        terms: dict[str, list[float | None]] = {}
        metrics: dict[str, float] = {}
        columns: dict[str, list[Any]] = {}
        failures: dict[str, dict[int, ScoreError]] = {}
        seconds: dict[str, float] = {}
        for name, given in answers.items():
            failures[name] = {i: answer for i, answer in enumerate(given.answers) if isinstance(answer, ScoreError)}
            seconds[name] = given.seconds
            terms[name] = self._settle(name, given.answers, list(failures[name]), samples)
            metrics |= given.metrics
            columns |= {f"{name}.{column}": list(values) for column, values in given.columns.items()}
            for note in given.notes:
                self._warn_once(f"note: `reward.{name}`: {note}")
        values = self._values(terms)
        return ScoredSamples(
            rewards=self._sums(values, len(samples)),
            terms=terms,
            values=values,
            metrics=metrics,
            columns=columns,
            failures=failures,
            seconds=seconds,
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

    @property
    def printed(self) -> str:
        """What isolated rewards have printed, where there is no run to keep it."""
        return "" if self._pool is None else self._pool.printed

    def dry_run(self, rows: Sequence[Row], prompt_format: PromptFormat) -> None:
        """Calls every reward on real rows with made-up completions, so that a broken one fails before a model loads."""
        samples = [
            Sample(
                prompt=apply_format(row, prompt_format).prompt,
                completion=text,
                completion_ids=[0],
                finish_reason="stop",
                columns=row.columns,
                group=index,
            )
            for index, row in enumerate(rows)
            for text in made_up(row)
        ]
        if not samples:
            return
        try:
            self.score(samples)
        except UserCodeError as error:
            error.args = (f"{error} It was tried before the run, on real rows with made-up completions.",)
            raise

    def _settle(
        self, name: str, answers: Sequence[Answer], failed: Sequence[int], samples: Sequence[Sample]
    ) -> list[float | None]:
        """What `on_error` makes of the answers."""
        on_error = self._rewards[name].settings.on_error
        asked = sum(answer is not None for answer in answers)
        bearable = 0 if on_error == "raise" else self._max_error_share * asked
        if len(failed) > bearable:
            raise _blamed(name, answers, failed, samples, asked, bearable)
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


class Scoring:
    """The scoring of one step's completions."""

    def __init__(self, scorer: Scorer, calls: Mapping[str, Calls], ahead: bool) -> None:
        self._scorer, self._calls = scorer, calls
        self._ahead = [one for one in calls.values() if ahead and one.can_begin_ahead]
        self.weights = scorer.weights

    @property
    def begins_ahead(self) -> bool:
        """Whether a reward can score a group while others are still sampled."""
        return bool(self._ahead)

    def add(self, samples: Sequence[Sample]) -> None:
        """All completions of one group; the rewards that can begin with them."""
        for calls in self._ahead:
            calls.begin(samples)

    def finish(self, samples: Sequence[Sample]) -> ScoredSamples:
        """Of all completions of the step, those that were added included. Raises like Scorer.score."""
        started = {name: calls.start(samples) for name, calls in self._calls.items()}
        return self._scorer.settled({name: one.finish() for name, one in started.items()}, samples)


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
        yield Scorer(rewards, pool, config.scoring.max_error_share, config.scoring.ahead)


def made_up(row: Row) -> tuple[str, ...]:
    """Completions for trying a reward out: nothing, a wrong answer, the row's own."""
    return ("", "0", str(row.columns.get("answer", "1")))


def reward_settings(config: TrainConfig, name: str) -> RewardSettings:
    """The keys of a reward's node, over those of scoring.each."""
    own = {key: value for key, value in config.reward[name].items() if key in MAPPING_KEYS["reward"]}
    return RewardSettings(**config.scoring.each | own)


def _blamed(
    name: str,
    answers: Sequence[Answer],
    failed: Sequence[int],
    samples: Sequence[Sample],
    asked: int,
    bearable: float,
) -> UserCodeError | Unavailable:
    """Unavailable if, but for what may be otherwise later, no more than `bearable` had failed."""
    errors = {place: answer for place in failed if isinstance(answer := answers[place], ScoreError)}
    share = f" {len(failed)} of {asked} failed." if len(failed) > 1 else ""
    lasting = [place for place, error in errors.items() if not error.passing]
    if len(lasting) <= bearable:
        passing = next(error for error in errors.values() if error.passing)
        return Unavailable(f"`reward.{name}`: {passing.message}.{share}")
    first = errors[lasting[0]]
    trace = " Its traceback stands above." if first.traceback else ""
    error = UserCodeError(
        f"`reward.{name}`: {first.message} (for the completion {samples[lasting[0]].completion[:80]!r}).{share}{trace}"
    )
    error.__cause__ = RewardTraceback(first.traceback) if first.traceback else None
    return error
