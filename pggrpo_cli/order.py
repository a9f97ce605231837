"""Which rows train when: a pure function of (seed, epoch) and of how many prompts were consumed. No iterator, no state."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from functools import lru_cache
from typing import TypeVar

T = TypeVar("T")


@lru_cache(maxsize=2)  # a step of a large data set would spend its time shuffling the same epoch again
def permutation(num_rows: int, seed: int, epoch: int) -> tuple[int, ...]:
    """The order of the rows in one epoch."""
    digest = hashlib.blake2b(f"{seed}|order|{epoch}".encode(), digest_size=8).digest()
    order = list(range(num_rows))
    random.Random(int.from_bytes(digest, "little")).shuffle(order)
    return tuple(order)


def rows_of_step(num_rows: int, wanted: int, consumed: int, seed: int) -> list[int]:
    """The next `wanted` row indices after `consumed` prompts; goes on into further epochs, each in an order of its own."""
    if num_rows < 1:
        raise ValueError("there are no rows to take from")
    rows: list[int] = []
    while len(rows) < wanted:
        epoch, position = divmod(consumed + len(rows), num_rows)
        rows += permutation(num_rows, seed, epoch)[position : position + wanted - len(rows)]
    return rows


def split(rows: Sequence[T], eval_size: int, seed: int) -> tuple[list[T], list[T]]:
    """(train, evaluation): `eval_size` rows held out, drawn by `seed`; both in their original order."""
    held_out = set(permutation(len(rows), seed, -1)[:eval_size])
    train = [row for index, row in enumerate(rows) if index not in held_out]
    return train, [row for index, row in enumerate(rows) if index in held_out]
