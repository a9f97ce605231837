"""The order of the rows: every row once an epoch, another order each epoch, no state but a counter."""

from __future__ import annotations

import pytest

from pggrpo_cli.order import rows_of_step, split


def test_each_epoch_sees_every_row_once_in_an_order_of_its_own() -> None:
    first, second = rows_of_step(10, 10, 0, seed=1), rows_of_step(10, 10, 10, seed=1)
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert first != rows_of_step(10, 10, 0, seed=2)


def test_steps_of_any_size_give_the_same_sequence() -> None:
    whole = rows_of_step(7, 30, 0, seed=3)
    for size in (1, 2, 3, 8, 11):
        pieces = [row for start in range(0, 30, size) for row in rows_of_step(7, min(size, 30 - start), start, seed=3)]
        assert pieces == whole


def test_a_step_larger_than_the_data_wraps() -> None:
    assert rows_of_step(1, 5, 3, seed=0) == [0] * 5
    with pytest.raises(ValueError, match="no rows"):
        rows_of_step(0, 1, 0, seed=0)


def test_split_is_a_partition_by_the_seed() -> None:
    rows = list("abcdefghij")
    train, held_out = split(rows, 3, seed=1)
    assert len(held_out) == 3
    assert sorted(train + held_out) == rows
    assert split(rows, 3, seed=1) == (train, held_out)
    assert split(rows, 3, seed=2) != (train, held_out)
    assert split(rows, 0, seed=1) == (rows, [])
