"""order=shuffled: every row once an epoch, in an order of its own. A pure function of the seed and of how many prompts were
consumed."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pggrpo_cli.metrics import Metric
from pggrpo_cli.parts import Part, Schedule, parts_of
from pggrpo_cli.shuffling import permutation
from pggrpo_cli.types import Prompt, ScoredGroup


@dataclass(frozen=True, kw_only=True)
class Shuffled:
    """The parts of a mixture take turns by weight; each has epochs of its own."""

    def begin(self, prompts: Sequence[Prompt], weights: Mapping[str, float], seed: int, identity: str) -> OpenShuffled:
        return OpenShuffled(parts_of(prompts, weights), seed)


class OpenShuffled:
    """Remembers the permutations of the epochs at hand, which it could compute again."""

    def __init__(self, parts: Sequence[Part], seed: int) -> None:
        self._parts, self._seed = parts, seed
        self._schedule = Schedule([part.weight for part in parts])
        self._epochs: dict[tuple[int, int], array[int]] = {}

    def rows(self, wanted: int, consumed: int, taken: Sequence[int]) -> list[int]:
        return [self._row(*self._schedule.turn(consumed + number)) for number in range(wanted)]

    def learn(self, groups: Sequence[ScoredGroup]) -> dict[str, Metric]:
        return {}

    def _row(self, part: int, number: int) -> int:
        """The row that comes after `number` others of its part."""
        places = self._parts[part].places
        epoch, position = divmod(number, len(places))
        if (part, epoch) not in self._epochs:
            # A step of a large data set would spend its time shuffling the same epoch again.
            self._epochs = {key: kept for key, kept in self._epochs.items() if key[0] != part or key[1] == epoch - 1}
            name = self._parts[part].name if len(self._parts) > 1 else ""
            self._epochs[part, epoch] = permutation(len(places), self._seed, epoch, name)
        return places[self._epochs[part, epoch][position]]
