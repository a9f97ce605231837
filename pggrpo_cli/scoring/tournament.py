"""Who is compared with whom within a group, and what the comparisons come to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pggrpo_cli.types import ScoreError

WORTH: Mapping[str, float] = {"A": 1.0, "B": 0.0, "TIE": 0.5}
"""Of a verdict, for the first of the two."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Places among the samples: `first` is shown as A, `second` as B."""

    first: int
    second: int

    def place_of(self, index: int) -> str:
        """A, B, or nothing if it takes no part."""
        return "A" if index == self.first else "B" if index == self.second else ""

    def other(self, index: int) -> int:
        return self.second if index == self.first else self.first

    def turned(self) -> Comparison:
        return Comparison(self.second, self.first)


def comparisons(groups: Sequence[int], opponents: int) -> list[Comparison]:
    """Each completion against `opponents` others of its group, at most all, each pair in both orders.

    A circulant design: i meets i ± 1, i ± 2, …, for an odd number also the one opposite. So every completion has the
    same number of comparisons. In a group of odd size that number is even: one more than asked for.
    """
    members: dict[int, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    found: list[Comparison] = []
    for places in members.values():
        size = len(places)
        wanted = min(opponents, size - 1)
        if size % 2 and wanted % 2:
            wanted += 1
        steps = list(range(1, wanted // 2 + 1)) + ([size // 2] if wanted % 2 else [])
        pairs = {tuple(sorted((place, (place + step) % size))) for step in steps for place in range(size)}
        for one, other in sorted(pairs):
            pair = Comparison(places[one], places[other])
            found += [pair, pair.turned()]
    return found


def shares(count: int, worth: Mapping[Comparison, float | ScoreError]) -> list[float | ScoreError | None]:
    """[count] mean of what each has won. A pair counts if both of its orders were judged, else the judge's liking for a
    place would count; without any such pair the ScoreError of one, without any pair at all None."""
    won: list[list[float]] = [[] for _ in range(count)]
    errors: list[ScoreError | None] = [None] * count
    for one, first in worth.items():
        second = worth[one.turned()]
        for value in (first, second):
            if isinstance(value, ScoreError):
                errors[one.first] = errors[one.first] or value
        if not isinstance(first, ScoreError) and not isinstance(second, ScoreError):
            won[one.first] += [first, 1 - second]
    return [math.fsum(values) / len(values) if values else errors[index] for index, values in enumerate(won)]
