"""Orders of rows as pure functions of a seed. No iterator, no state."""

from __future__ import annotations

import hashlib
import random
from array import array
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def permutation(num_rows: int, seed: int, epoch: int, part: str = "") -> array[int]:
    """The order of the rows in one epoch, 8 bytes a row; `part`: which of several sources they are of."""
    key = f"{seed}|order|{epoch}|{part}" if part else f"{seed}|order|{epoch}"
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    order = array("q", range(num_rows))
    random.Random(int.from_bytes(digest, "little")).shuffle(order)  # as it would a list
    return order


def split(rows: Sequence[T], eval_size: int, seed: int) -> tuple[list[T], list[T]]:
    """(train, evaluation): `eval_size` rows held out, drawn by `seed`; both in their original order."""
    held_out = set(permutation(len(rows), seed, -1)[:eval_size])
    train = [row for index, row in enumerate(rows) if index not in held_out]
    return train, [row for index, row in enumerate(rows) if index in held_out]
