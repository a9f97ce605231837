"""Prompts that are rendered and tokenised when their turn comes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import overload

from pggrpo_cli.lazy_rows import LazyRows
from pggrpo_cli.prompts import RenderedPrompts, Renderer
from pggrpo_cli.types import Prompt

KEPT = 512
"""Prompts that stay in memory once they were rendered."""
LOOKED_AT = 256
"""Prompts, spread evenly over all, that tell beforehand how long they are."""


class LazyPrompts(Sequence[Prompt]):
    """The prompts of lazy rows. Where data.overlong=drop drops a row, the next one of the data set that fits stands in its
    place, with its own Prompt.index: which prompt a place gives depends on the place alone, so a run that goes on sees the
    same ones.
    """

    def __init__(self, rows: LazyRows, renderer: Renderer) -> None:
        self.rows, self.renderer = rows, renderer
        self._own = lru_cache(maxsize=KEPT)(self._of_row)
        self._at = lru_cache(maxsize=KEPT)(self._first_from)

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Prompt: ...
    @overload
    def __getitem__(self, index: slice) -> list[Prompt]: ...
    def __getitem__(self, index: int | slice) -> Prompt | list[Prompt]:
        if isinstance(index, slice):
            return [self._at(place) for place in range(*index.indices(len(self)))]
        return self._at(range(len(self))[index])

    def sample(self) -> list[Prompt | None]:
        """Those of rows spread evenly over all; None for a row that is dropped. The same at every call."""
        count = min(LOOKED_AT, len(self))
        places = [number * len(self) // count for number in range(count)]
        return [self.renderer.fitted(self.rows[place], place) for place in places]

    def has_own(self, place: int) -> bool:
        """Whether the row there fits, so that no other one stands in its place."""
        return self._own(place) is not None

    def _of_row(self, place: int) -> Prompt | None:
        return self.renderer.fitted(self.rows[place], place)

    def _first_from(self, index: int) -> Prompt:
        for offset in range(len(self)):
            prompt = self._own((index + offset) % len(self))
            if prompt is not None:
                return prompt
        raise self.renderer.none_fits(len(self))


def indices_of(prompts: Sequence[Prompt]) -> Sequence[int]:
    """Prompt.index of each; of lazy prompts, of the row that stands at each place of the data set."""
    return range(len(prompts)) if isinstance(prompts, LazyPrompts) else [prompt.index for prompt in prompts]


def render_lazily(rows: LazyRows, renderer: Renderer) -> RenderedPrompts:
    """Raises DataError if no row fits; other than that, rows are looked at when their turn comes."""
    prompts = LazyPrompts(rows, renderer)
    first = prompts[0]
    looked_at = prompts.sample()
    fitted = [prompt for prompt in looked_at if prompt is not None]
    return RenderedPrompts(
        prompts=prompts,
        dropped=len(looked_at) - len(fitted),
        truncated=sum(prompt.truncated for prompt in fitted),
        sample=fitted or [first],
    )
