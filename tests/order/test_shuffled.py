"""Every row once an epoch, another order each epoch, no state but a counter; the parts of a mixture by weight."""

from __future__ import annotations

from collections import Counter

import pytest

from pggrpo_cli.order.shuffled import OpenShuffled, Shuffled
from pggrpo_cli.shuffling import permutation
from tests.test_parts import prompts_of


def begin(count: int, seed: int) -> OpenShuffled:
    return Shuffled().begin(prompts_of(*[""] * count), {}, seed, "")


def test_each_epoch_sees_every_row_once_in_an_order_of_its_own() -> None:
    order = begin(10, seed=1)
    first, second = order.rows(10, 0, []), order.rows(10, 10, [])
    assert sorted(first) == sorted(second) == list(range(10))
    assert first == list(permutation(10, 1, 0))
    assert first != second
    assert first != begin(10, seed=2).rows(10, 0, [])


def test_steps_of_any_size_give_the_same_sequence() -> None:
    whole = begin(7, seed=3).rows(30, 0, [])
    for size in (1, 2, 3, 8, 11):
        order = begin(7, seed=3)
        pieces = [row for start in range(0, 30, size) for row in order.rows(min(size, 30 - start), start, [])]
        assert pieces == whole


def test_a_step_larger_than_the_data_wraps() -> None:
    assert begin(1, seed=0).rows(5, 3, []) == [0] * 5
    with pytest.raises(ValueError, match="no rows"):
        begin(0, seed=0)


def test_a_mixture_of_one_source_is_that_source() -> None:
    mixture = Shuffled().begin(prompts_of(*["sums"] * 9), {"sums": 3.0}, 4, "")
    assert mixture.rows(40, 5, []) == begin(9, seed=4).rows(40, 5, [])


def test_each_source_has_epochs_of_its_own() -> None:
    names = ["a"] * 4 + ["b"] * 10 + ["a"] * 2
    order = Shuffled().begin(prompts_of(*names), {"a": 3.0, "b": 1.0}, 1, "")
    rows = order.rows(400, 0, [])
    assert Counter(names[row] for row in rows) == {"a": 300, "b": 100}
    of_a, of_b = ([row for row in rows if names[row] == name] for name in "ab")
    for own, size in ((of_a, 6), (of_b, 10)):
        epochs = [own[start : start + size] for start in range(0, len(own), size)]
        assert all(len(set(epoch)) == size for epoch in epochs)
        assert epochs[0] != epochs[1]
    fresh = Shuffled().begin(prompts_of(*names), {"a": 3.0, "b": 1.0}, 1, "")
    assert [row for start in range(0, 400, 7) for row in fresh.rows(7, start, [])][:400] == rows
