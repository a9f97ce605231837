"""data=reasoning_gym: any task of the reasoning-gym library with its parameters."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from typing import Annotated, Any

from pggrpo_cli.errors import ConfigError
from pggrpo_cli.filters import Sieve
from pggrpo_cli.lazy_rows import selected
from pggrpo_cli.ranges import Range
from pggrpo_cli.records import limited
from pggrpo_cli.shuffling import split
from pggrpo_cli.types import Dataset, Row

BY_HASH_SEED = ("isomorphic_strings", "knight_swap", "polynomial_multiplication", "ransom_note", "word_ladder")
"""Tasks that go through sets of strings, whose order Python draws anew at every start."""


@dataclass(frozen=True, kw_only=True)
class ReasoningGym:
    """`size` questions drawn with `data_seed`; questions that come twice are kept once, so that what is held out is
    never trained on. Columns: question, answer, metadata, and `task` and `params` for the reward of the same name.
    """

    task: str
    params: dict[str, Any]
    size: Annotated[int, Range(ge=1)]
    eval_size: Annotated[int, Range(ge=0)]
    data_seed: int
    as_chat: bool

    def load(self, seed: int, sieve: Sieve | None = None) -> Dataset:
        try:
            import reasoning_gym
            from reasoning_gym.factory import DATASETS
        except ImportError as error:
            raise ConfigError("`data`: reasoning_gym is not installed: pip install 'pggrpo[tasks]'") from error
        if self.task not in DATASETS:
            import difflib

            near = difflib.get_close_matches(self.task, DATASETS, n=3)
            raise ConfigError(
                f"`data.task`: reasoning-gym has no task {self.task!r}."
                + (
                    f" Did you mean {' or '.join(near)}?"
                    if near
                    else f" It has {len(DATASETS)}; see its documentation."
                )
            )
        if self.task in BY_HASH_SEED and os.environ.get("PYTHONHASHSEED", "random") == "random":
            raise ConfigError(
                f"`data.task`: the questions of {self.task} depend on the order of Python's sets, which is another one at "
                "every start: no run could be repeated or resumed. Start with PYTHONHASHSEED=0 in the environment."
            )
        state = random.getstate()
        random.seed(self.data_seed)  # some tasks forget their own seed
        try:
            entries = list(reasoning_gym.create_dataset(self.task, size=self.size, seed=self.data_seed, **self.params))
        except (TypeError, AssertionError, ValueError) as error:
            raise ConfigError(f"`data.params`: task {self.task} refuses them: {error}") from error
        finally:
            random.setstate(state)
        rows: dict[str, Row] = {}
        for index, entry in enumerate(entries):
            question = entry["question"]
            prompt: Any = [{"role": "user", "content": question}] if self.as_chat else question
            columns = {**entry, "task": self.task, "params": self.params}
            rows.setdefault(question, Row(prompt=prompt, columns=columns, source=f"{self.task}:{index}"))
        kept = selected(rows.values(), sieve)
        if len(kept) <= self.eval_size:
            raise ConfigError(
                f"`data.eval_size`: {self.eval_size} of {len(kept)} different questions held out leaves none to train "
                "on. Raise data.size or lower data.eval_size."
            )
        train, evaluation = split(kept, self.eval_size, seed)
        return Dataset(train=limited(train, sieve), evaluation=evaluation)
