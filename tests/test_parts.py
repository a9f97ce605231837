"""Parts take turns by weight: never a prompt more or less than their share, rounded."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from pggrpo_cli.errors import DataError
from pggrpo_cli.parts import Schedule, interleaved, parts_of, some_of_each_part
from pggrpo_cli.types import Prompt, Row
from tests.conftest import make_prompts


def prompts_of(*parts: str) -> list[Prompt]:
    made = make_prompts([[1]] * len(parts))
    return [replace(prompt, row=Row(prompt="", part=part)) for prompt, part in zip(made, parts, strict=True)]


@pytest.mark.parametrize(
    "weights", [(1,), (1, 1), (3, 1), (0.7, 0.2, 0.1), (0.5, 0.499, 0.001), (1, 2, 3, 4, 5), (0.123457, 1, 10)]
)
def test_after_any_number_of_prompts_the_counts_are_within_one_of_the_shares(weights: tuple[float, ...]) -> None:
    schedule, counts = Schedule(weights), Counter[int]()
    for position in range(3000):
        part, earlier = schedule.turn(position)
        assert earlier == counts[part]
        counts[part] += 1
        for index, weight in enumerate(weights):
            assert abs(counts[index] - weight / sum(weights) * (position + 1)) < 1 + 1e-9


def test_a_turn_depends_on_its_position_alone() -> None:
    whole = [Schedule((0.6, 0.3, 0.1)).turn(position) for position in range(200)]
    backwards = Schedule((0.6, 0.3, 0.1))
    assert [backwards.turn(position) for position in reversed(range(200))][::-1] == whole
    assert [part for part, _ in whole[:10]] == [0, 0, 1, 0, 1, 0, 0, 1, 0, 2]  # by hand
    # Far into a run nothing is counted from its beginning: the turns come again.
    far = Schedule((6, 3, 1))
    assert [far.turn(10**12 + position)[0] for position in range(10)] == [part for part, _ in whole[:10]]
    assert far.turn(10**12)[1] == 6 * 10**11


def test_what_was_dropped_leaves_the_places_right() -> None:
    a, b = parts_of(prompts_of("b", "a", "b", "a", "a"), {"a": 2.0, "b": 1.0})
    assert (a.name, a.weight, list(a.places)) == ("a", 2.0, [1, 3, 4])
    assert list(b.places) == [0, 2]
    (whole,) = parts_of(prompts_of("", ""), {})
    assert whole.places == range(2)  # whatever their number, it keeps none of them


def test_the_places_of_a_source_are_eight_bytes_each() -> None:
    (a,) = parts_of(prompts_of("a") * 1000, {"a": 1.0})
    assert memoryview(a.places).nbytes == 8000  # type: ignore[arg-type]


def test_a_source_without_a_row_is_named() -> None:
    with pytest.raises(DataError, match=r"`data\.sources\.legs`: none of its rows is left"):
        parts_of(prompts_of("sums"), {"sums": 1.0, "legs": 1.0})
    with pytest.raises(ValueError, match="no rows"):
        parts_of([], {})


def test_any_beginning_of_what_is_held_out_is_mixed() -> None:
    turns = interleaved({"a": 30, "b": 10, "c": 2}, {"a": 3.0, "b": 1.0, "c": 1.0})
    assert sorted(turns) == sorted([("a", i) for i in range(30)] + [("b", i) for i in range(10)] + [("c", 0), ("c", 1)])
    assert Counter(name for name, _ in turns[:10]) == {"a": 6, "b": 2, "c": 2}
    assert [place for name, place in turns if name == "a"] == list(range(30))


def test_every_source_has_rows_that_rewards_are_tried_on() -> None:
    rows = [Row(prompt=str(number), part="ab"[number >= 5]) for number in range(7)]
    assert [row.prompt for row in some_of_each_part(rows, 3)] == ["0", "1", "2", "5", "6"]
