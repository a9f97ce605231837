"""Orders that depend on a seed alone."""

from __future__ import annotations

import tracemalloc

from pggrpo_cli.shuffling import permutation, split


def test_split_is_a_partition_by_the_seed() -> None:
    rows = list("abcdefghij")
    train, held_out = split(rows, 3, seed=1)
    assert len(held_out) == 3
    assert sorted(train + held_out) == rows
    assert split(rows, 3, seed=1) == (train, held_out)
    assert split(rows, 3, seed=2) != (train, held_out)
    assert split(rows, 0, seed=1) == (rows, [])


def test_the_order_of_an_epoch_never_changes() -> None:
    """Of 0.1.0: a run of that release goes on with the rows that it would have seen."""
    assert list(permutation(10, seed=1, epoch=0)) == [7, 2, 8, 5, 4, 0, 1, 6, 9, 3]


def test_an_epoch_keeps_eight_bytes_a_row() -> None:
    tracemalloc.start()
    order = permutation(20_000, 1, 0)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sorted(order) == list(range(20_000))
    assert kept < 9 * 20_000
    assert peak < 20 * 20_000  # while the array grows there are two of it


def test_sources_of_equal_size_are_shuffled_differently() -> None:
    assert permutation(10, 1, 0, "sums") != permutation(10, 1, 0, "legs") != permutation(10, 1, 0)
