"""The parts of a mixture and how they take turns: a pure function of the weights and of how many prompts were consumed."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from pggrpo_cli.errors import DataError
from pggrpo_cli.lazy_rows import LazyRows
from pggrpo_cli.types import Prompt, Row


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """The prompts of one source."""

    name: str
    weight: float
    places: Sequence[int]
    """Of its prompts among all; never empty. A range or an array: there may be millions."""


def parts_of(prompts: Sequence[Prompt], weights: Mapping[str, float]) -> list[Part]:
    """The parts in the order of `weights`; one without a name if there are no weights.

    Raises DataError if a source has no prompt left: what is too long was dropped before.
    """
    if not prompts:
        raise ValueError("there are no rows to take from")
    if not weights:
        return [Part(name="", weight=1.0, places=range(len(prompts)))]
    places: dict[str, array[int]] = {name: array("q") for name in weights}
    for place, prompt in enumerate(prompts):
        places[prompt.row.part].append(place)
    for name, own in places.items():
        if not own:
            raise DataError(
                f"`data.sources.{name}`: none of its rows is left: all their prompts are too long. Raise "
                "max_prompt_tokens, lower sampler.max_new_tokens, or use overlong=truncate_left there."
            )
    return [Part(name=name, weight=weights[name], places=own) for name, own in places.items()]


class Schedule:
    """Which part each prompt of the run comes from: Balinski and Young's quota method (The American Mathematical Monthly
    82, 1975). Of the parts that had less than their share w_i · n of the first n prompts, the next comes from the one
    with the largest w_i / (count_i + 1); ties go to the first. So after any n prompts every part had w_i · n of them,
    rounded down or up. What was found is remembered; it repeats itself once every share is a whole number.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        exact = [Fraction(str(weight)) for weight in weights]
        shares = [weight / sum(exact) for weight in exact]
        self._period = math.lcm(*(share.denominator for share in shares))
        self._quotas = [int(share * self._period) for share in shares]
        """Prompts of each part in one period."""
        self._counts = [0] * len(weights)
        self._parts, self._earlier = array("q"), array("q")
        """By position in the period: the part, and how many of it came before."""

    def turn(self, position: int) -> tuple[int, int]:
        """(the part that the prompt at `position`, from 0, comes from; how many prompts of that part came before)."""
        periods, within = divmod(position, self._period)
        while len(self._parts) <= within:
            self._extend()
        part = self._parts[within]
        return part, periods * self._quotas[part] + self._earlier[within]

    def _extend(self) -> None:
        number = len(self._parts) + 1
        best = -1
        for part, (quota, count) in enumerate(zip(self._quotas, self._counts, strict=True)):
            behind = count * self._period < quota * number
            if behind and (best < 0 or quota * (self._counts[best] + 1) > self._quotas[best] * (count + 1)):
                best = part
        self._parts.append(best)
        self._earlier.append(self._counts[best])
        self._counts[best] += 1


def some_of_each_part(rows: Sequence[Row], count: int) -> list[Row]:
    """The first `count` rows of every source. Rows that are read when their turn comes have one source."""
    if isinstance(rows, LazyRows):
        return list(rows[:count])
    seen: Counter[str] = Counter()
    chosen: list[Row] = []
    for row in rows:
        seen[row.part] += 1
        if seen[row.part] <= count:
            chosen.append(row)
    return chosen


def interleaved(sizes: Mapping[str, int], weights: Mapping[str, float]) -> list[tuple[str, int]]:
    """(name, place) of everything in parts of these sizes, mixed by weight as far as each goes: any beginning of it is as
    mixed as the whole run is."""
    turns = [(name, place) for name, size in sizes.items() for place in range(size)]
    return sorted(turns, key=lambda turn: (turn[1] + 0.5) / weights[turn[0]])
