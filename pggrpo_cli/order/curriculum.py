"""order=curriculum: rows that the model solves sometimes come more often than those it solves always or never."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated

import numpy as np
import torch

from pggrpo_cli.lazy_prompts import LazyPrompts, indices_of
from pggrpo_cli.metrics import Metric, mean
from pggrpo_cli.parts import Part, Schedule, parts_of
from pggrpo_cli.ranges import Range
from pggrpo_cli.types import Prompt, ScoredGroup, StateDict


@dataclass(frozen=True, kw_only=True)
class Curriculum:
    """A row's chance to be drawn is proportional to

        max( floor, 4 p̂ (1 − p̂) ),    p̂ = (prior_solved + s) / (prior_solved + prior_failed + n),

    n its sampled completions so far and s those of them with reward ≥ solved_at, both halved every `half_life` steps
    (null: never), because the model moves on. 4 p (1 − p) is, up to a constant, the variance of a reward of 0 or 1, and so
    the expected square of its advantage: a row whose completions are all alike teaches nothing. A row that was not
    sampled yet has the prior's p̂; with equal priors that is 1/2, so new rows come first.

    Rows are drawn without replacement within a step, by Gumbel numbers derived from (seed, prompts consumed, row). The
    parts of a mixture keep their weights: the turns are those of order=shuffled, the choice is within the part.
    Completions that come with the data set measure nothing: such rows stay at the prior, all equally likely.
    Of prompts that are rendered when their turn comes, the place of a row that data.overlong=drop drops is passed over:
    the row that stands in for it has its own.
    """

    solved_at: float
    prior_solved: Annotated[float, Range(gt=0)]
    prior_failed: Annotated[float, Range(gt=0)]
    floor: Annotated[float, Range(gt=0, le=1)]
    half_life: Annotated[float | None, Range(gt=0)]

    def begin(
        self, prompts: Sequence[Prompt], weights: Mapping[str, float], seed: int, identity: str
    ) -> OpenCurriculum:
        return OpenCurriculum(self, parts_of(prompts, weights), prompts, seed, identity)


class OpenCurriculum:
    """What was measured of each row. It changes once a step, when the step is done."""

    def __init__(
        self, config: Curriculum, parts: Sequence[Part], prompts: Sequence[Prompt], seed: int, identity: str
    ) -> None:
        """`identity`: of which data set."""
        self._config, self._parts, self._seed, self._identity = config, parts, seed, identity
        self._schedule = Schedule([part.weight for part in parts])
        self._places = [np.array(part.places) for part in parts]
        self._lazy = prompts if isinstance(prompts, LazyPrompts) else None
        self._indices = np.array(indices_of(prompts))
        """Prompt.index of each place, ascending; a checkpoint names rows by it."""
        self._tried, self._solved = np.zeros(len(prompts)), np.zeros(len(prompts))
        self._dropped = np.zeros(len(prompts), bool)
        """Places whose row was found to be dropped. Not in the state: a fact of the data, which can be found again."""

    def rows(self, wanted: int, consumed: int, taken: Sequence[int]) -> list[int]:
        turns = [self._schedule.turn(consumed + number)[0] for number in range(wanted)]
        scores = self._scores(consumed)
        drawn = {part: iter(self._best(part, count, scores, taken)) for part, count in Counter(turns).items()}
        return [next(drawn[part]) for part in turns]

    def learn(self, groups: Sequence[ScoredGroup]) -> dict[str, Metric]:
        """curriculum/mean_solved: p̂ averaged over the rows that were sampled at least once; curriculum/measured_share:
        the share of these rows."""
        if self._config.half_life is not None:
            kept = 0.5 ** (1 / self._config.half_life)
            self._tried *= kept
            self._solved *= kept
        for group in groups:
            (place,) = self._places_of([group.prompt.index])
            for rollout, reward in zip(group.rollouts, group.rewards, strict=True):
                if rollout.finish_reason != "offline" and not math.isnan(reward):
                    self._tried[place] += 1
                    self._solved[place] += reward >= self._config.solved_at
        measured = self._tried > 0
        return {
            "curriculum/mean_solved": mean(float(self._estimates()[measured].sum()), int(measured.sum())),
            "curriculum/measured_share": mean(int(measured.sum()), len(measured)),
        }

    def state(self) -> StateDict:
        """Of the rows that were sampled."""
        measured = self._tried > 0
        if not measured.any():
            return {}
        return {
            "identity": self._identity,
            "indices": torch.from_numpy(self._indices[measured]),
            "tried": torch.from_numpy(self._tried[measured]),
            "solved": torch.from_numpy(self._solved[measured]),
        }

    def load(self, state: StateDict) -> None:
        """What was measured on other rows is not taken over."""
        if state and state["identity"] == self._identity:
            places = self._places_of(state["indices"].tolist())
            self._tried[places] = state["tried"].numpy()
            self._solved[places] = state["solved"].numpy()

    def _places_of(self, indices: Sequence[int]) -> list[int]:
        return np.searchsorted(self._indices, indices).tolist()

    def _estimates(self) -> np.ndarray:
        """p̂ of every row."""
        solved, failed = self._config.prior_solved, self._config.prior_failed
        return (solved + self._solved) / (solved + failed + self._tried)

    def _scores(self, consumed: int) -> np.ndarray:
        """log of the chance + a Gumbel number, for every row: the k largest are k draws without replacement."""
        key = f"{self._seed}|curriculum|{consumed}".encode()
        seed = int.from_bytes(hashlib.blake2b(key, digest_size=16).digest(), "little")
        uniform = np.random.Generator(np.random.Philox(key=seed)).random(len(self._tried)).clip(min=2.0**-54)
        estimates = self._estimates()
        chance = np.maximum(self._config.floor, 4 * estimates * (1 - estimates))
        return np.log(chance) - np.log(-np.log(uniform))

    def _best(self, part: int, count: int, scores: np.ndarray, taken: Sequence[int]) -> list[int]:
        """`count` rows of the part by score, those last that the step has already; from the start again if it has fewer."""
        places = self._places[part]
        again = np.isin(places, np.array(taken, dtype=int))
        ranked = places[np.lexsort((-scores[places], again))]
        left = ranked[~self._dropped[ranked]]
        own = list(islice((place for place in map(int, left) if self._has_own(place)), count))
        return np.resize(own, count).tolist()

    def _has_own(self, place: int) -> bool:
        """Whether the row there is not dropped. It is rendered for that, as it would be to train on it."""
        if self._lazy is not None:
            self._dropped[place] = not self._lazy.has_own(place)
        return not self._dropped[place]
