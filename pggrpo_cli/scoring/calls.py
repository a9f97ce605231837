"""One reward's calls for the completions of a step, cut into batches and put together again."""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from pggrpo_cli.config import RewardSettings
from pggrpo_cli.scoring.answers import Answer, Answers, call
from pggrpo_cli.scoring.pool import IsolatedReward, Pool
from pggrpo_cli.types import Sample


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedReward:
    """A reward, here (an object with `score`) or in a process of its own, and the keys of its node."""

    reward: Any
    settings: RewardSettings


@dataclass(frozen=True, slots=True)
class _Ahead:
    """A call that began before all completions of the step were there."""

    samples: Sequence[Sample]
    answers: Future[Answers]

    def is_of(self, samples: Sequence[Sample]) -> bool:
        """Whether it scores just these: a rollout that memory broke off comes again, perhaps with another token."""
        return len(samples) == len(self.samples) and all(
            one.group == other.group
            and one.columns is other.columns
            and one.completion_ids == other.completion_ids
            and one.completion == other.completion
            and one.finish_reason == other.finish_reason
            for one, other in zip(samples, self.samples, strict=True)
        )


class Calls:
    """A call holds all completions of the step, or at most batch_size of one group. Only the latter, and only in
    processes of their own, can begin ahead."""

    def __init__(self, named: NamedReward, pool: Pool | None) -> None:
        self._reward, self._settings, self._pool = named.reward, named.settings, pool
        self._ahead: dict[int, list[_Ahead]] = {}

    @property
    def can_begin_ahead(self) -> bool:
        return isinstance(self._reward, IsolatedReward) and self._settings.batch_size is not None

    def begin(self, samples: Sequence[Sample]) -> None:
        """Scores `samples`, all completions of one group, while others are still sampled."""
        chunks = self._chunks([one for one in samples if self._settings.applies(one)])
        begun = [_Ahead(chunk, self._begun(chunk) or self._submit(chunk)) for chunk in chunks]
        self._ahead[samples[0].group] = begun

    def start(self, samples: Sequence[Sample]) -> Started:
        """The calls for all completions of the step; those of other processes are under way when this returns."""
        places = [index for index, sample in enumerate(samples) if self._settings.applies(sample)]
        chunks = list(self._chunks([samples[place] for place in places]))
        calls: list[Future[Answers] | Sequence[Sample]] = [
            (self._begun(chunk) or self._submit(chunk)) if isinstance(self._reward, IsolatedReward) else chunk
            for chunk in chunks
        ]
        return Started(self._reward, len(samples), places, [len(chunk) for chunk in chunks], calls)

    def _begun(self, chunk: Sequence[Sample]) -> Future[Answers] | None:
        found = (one.answers for one in self._ahead.get(chunk[0].group, ()) if one.is_of(chunk))
        return next(found, None)

    def _submit(self, chunk: Sequence[Sample]) -> Future[Answers]:
        assert self._pool is not None
        return self._pool.submit(self._reward, chunk)

    def _chunks(self, samples: Sequence[Sample]) -> Iterator[Sequence[Sample]]:
        size = self._settings.batch_size
        if size is None:
            if samples:
                yield samples
            return
        for _, members in groupby(samples, lambda sample: sample.group):
            group = list(members)
            yield from (group[start : start + size] for start in range(0, len(group), size))


@dataclass(frozen=True, slots=True)
class Started:
    """Calls on their way."""

    reward: Any
    count: int
    """Completions of the step."""
    places: Sequence[int]
    """Which of them the reward applies to, in the order of the calls."""
    sizes: Sequence[int]
    """Completions of each call."""
    calls: Sequence[Future[Answers] | Sequence[Sample]]
    """In another process, or still to be made here."""

    def finish(self) -> Answers:
        """All answers, in the order of the completions."""
        with _random_state_kept():
            parts = [one.result() if isinstance(one, Future) else call(self.reward, one) for one in self.calls]
        answers: list[Answer] = [None] * self.count
        given = [answer for part in parts for answer in part.answers]
        for place, answer in zip(self.places, given, strict=True):
            answers[place] = answer
        metrics: dict[str, list[float]] = {}
        for part in parts:
            for name, value in part.metrics.items():
                metrics.setdefault(name, []).append(value)
        means = {name: math.fsum(values) / len(values) for name, values in metrics.items()}
        seconds = sum(part.seconds for part in parts)
        notes = [note for part in parts for note in part.notes]
        return Answers(answers=answers, metrics=means, columns=self._columns(parts), seconds=seconds, notes=notes)

    def _columns(self, parts: Sequence[Answers]) -> Mapping[str, Sequence[Any]]:
        columns: dict[str, list[Any]] = {}
        start = 0
        for part, size in zip(parts, self.sizes, strict=True):
            for name, values in part.columns.items():
                column = columns.setdefault(name, [None] * self.count)
                for place, value in zip(self.places[start : start + size], values, strict=False):
                    column[place] = value
            start += size
        return columns


@contextmanager
def _random_state_kept() -> Iterator[None]:
    """Whatever a reward does to the global generators, training does not notice: torch.manual_seed reaches those of every
    GPU, too. A GPU that is not in use yet stays so."""
    state = random.getstate()
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    numpy_state = None if numpy is None else numpy.random.get_state()
    torch_state = None if torch is None else torch.get_rng_state()
    cuda = None if torch is None or not (torch.cuda.is_available() and torch.cuda.is_initialized()) else torch.cuda
    cuda_states = None if cuda is None else cuda.get_rng_state_all()
    try:
        yield
    finally:
        random.setstate(state)
        if numpy is not None:
            numpy.random.set_state(numpy_state)
        if torch is not None:
            torch.set_rng_state(torch_state)
        if cuda is not None:
            cuda.set_rng_state_all(cuda_states)
