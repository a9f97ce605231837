"""What was measured decides what is drawn; what is drawn depends on nothing else but seed and counter."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pggrpo_cli.lazy_prompts import LazyPrompts
from pggrpo_cli.metrics import values
from pggrpo_cli.order.curriculum import Curriculum, OpenCurriculum
from pggrpo_cli.types import Rollout, ScoredGroup
from tests.test_lazy_rows import jsonl, lazy, renderer, write
from tests.test_parts import prompts_of

KEYS: dict[str, Any] = {"solved_at": 1.0, "prior_solved": 1.0, "prior_failed": 1.0, "floor": 0.05, "half_life": None}


def begin(*parts: str, weights: dict[str, float] | None = None, identity: str = "x", **changes: Any) -> OpenCurriculum:
    return Curriculum(**KEYS | changes).begin(prompts_of(*parts), weights or {}, 1, identity)


def scored(place: int, rewards: list[float], finish: str = "stop", count: int = 9) -> ScoredGroup:
    rollouts = [
        Rollout(completion_ids=torch.tensor([1]), logprobs=None, text="", finish_reason=finish)  # type: ignore[arg-type]
        for _ in rewards
    ]
    return ScoredGroup(
        prompt=prompts_of(*[""] * count)[place], rollouts=rollouts, rewards=rewards, reward_terms={}, advantages=rewards
    )


def test_the_chance_to_be_drawn_is_the_formula() -> None:
    """Rows solved 0, 4 and 8 times out of 8, and one never sampled: p̂ = 1/10, 1/2, 9/10, 1/2."""
    order = begin(*[""] * 4)
    order.learn([scored(0, [0.0] * 8), scored(1, [1.0] * 4 + [0.5] * 4), scored(2, [1.0] * 8)])
    drawn = Counter(row for consumed in range(20_000) for row in order.rows(1, consumed, []))
    chances = np.array([0.36, 1.0, 0.36, 1.0])
    for row, chance in enumerate(chances / chances.sum()):
        assert abs(drawn[row] / 20_000 - chance) < 4 * math.sqrt(chance / 20_000)


def test_the_floor_keeps_every_row_in_play() -> None:
    order = begin(*[""] * 2, floor=0.5)
    for _ in range(20):
        order.learn([scored(0, [1.0] * 8)])
    drawn = Counter(row for consumed in range(6000) for row in order.rows(1, consumed, []))
    assert abs(drawn[0] / 6000 - 1 / 3) < 0.03


def test_measurements_are_forgotten() -> None:
    order = begin(*[""] * 3, half_life=2.0)
    order.learn([scored(0, [1.0] * 8)])
    order.learn([])
    metrics = values(order.learn([scored(1, [0.0, math.nan])]))
    first, second = (1 + 4) / (2 + 4), 1 / (2 + 1)
    assert metrics["curriculum/mean_solved"] == pytest.approx((first + second) / 2)
    assert metrics["curriculum/measured_share"] == pytest.approx(2 / 3)


def test_no_row_comes_twice_in_a_step_unless_there_are_too_few() -> None:
    order = begin(*[""] * 6)
    first = order.rows(4, 100, [])
    second = order.rows(2, 104, first)
    assert sorted(first + second) == list(range(6))
    assert Counter(order.rows(9, 0, [])) == Counter([*range(6), *order.rows(3, 0, [])])
    assert set(order.rows(3, 106, first + second)) <= set(range(6))


def test_sources_keep_their_weights_and_the_choice_is_within_them() -> None:
    names = ["a"] * 5 + ["b"] * 5
    order = begin(*names, weights={"a": 3.0, "b": 1.0})
    order.learn([scored(place, [1.0] * 50, count=10) for place in (0, 1, 2, 3)])
    rows = [row for step in range(500) for row in order.rows(4, 4 * step, [])]
    assert Counter(names[row] for row in rows) == {"a": 1500, "b": 500}
    counts = Counter(rows)
    assert counts[4] > 480  # of three of five rows a step, the one that is not solved all but always comes
    assert min(counts[place] for place in range(5, 10)) > 60


def test_what_the_data_set_brings_measures_nothing() -> None:
    order = begin("", "")
    assert math.isnan(values(order.learn([scored(0, [1.0, 0.0], finish="offline")]))["curriculum/mean_solved"])
    assert order.state() == {}


def test_a_state_goes_on_where_it_was() -> None:
    order = begin(*[""] * 9, half_life=30.0)
    for step in range(5):
        order.learn([scored(row, [float(row % 2)] * 3) for row in order.rows(3, 3 * step, [])])
    other, elsewhere = begin(*[""] * 9, half_life=30.0), begin(*[""] * 9, half_life=30.0, identity="y")
    for one in (other, elsewhere):
        one.load(order.state())
    assert [other.rows(4, consumed, []) for consumed in range(50)] == [order.rows(4, c, []) for c in range(50)]
    assert elsewhere.state() == {}
    assert order.rows(4, 15, []) == order.rows(4, 15, [])  # asking changes nothing


def streamed(path: Path) -> LazyPrompts:
    """30 rows of 2, 4, … 14 tokens in turn, of which those of more than 12 are dropped: places 6, 13, 20, 27."""
    return LazyPrompts(lazy(jsonl(path).load(1)), renderer(12))


def test_no_row_is_drawn_in_the_place_of_one_that_is_dropped(tmp_path: Path) -> None:
    """Such a place, never measured, would stay at the prior when all others are solved: more likely than any of them."""
    prompts = streamed(write(tmp_path / "f.jsonl"))
    order = Curriculum(**KEYS).begin(prompts, {}, 1, "x")
    fits = [place for place in range(30) if place % 7 != 6]
    assert {prompts[place].index for place in (6, 13, 20, 27)} == {7, 14, 21, 28}
    for _ in range(3):
        order.learn([replace(scored(0, [1.0] * 8), prompt=prompts[place]) for place in fits])
    drawn = Counter(row for consumed in range(1500) for row in order.rows(2, consumed, []))
    assert sorted(drawn) == fits
    assert max(drawn.values()) < 3 * min(drawn.values())  # all have the same chance
    assert Counter(order.rows(30, 0, [])).keys() == set(fits)
    assert sorted(order.rows(20, 0, []) + order.rows(6, 20, order.rows(20, 0, []))) == fits


def test_a_resumed_run_passes_over_the_same_places(tmp_path: Path) -> None:
    """What was found of them is not in the state, and need not be."""
    prompts = streamed(write(tmp_path / "f.jsonl"))
    order = Curriculum(**KEYS).begin(prompts, {}, 1, "x")
    for step in range(6):
        order.learn([replace(scored(0, [1.0] * 8), prompt=prompts[row]) for row in order.rows(4, 4 * step, [])])
    resumed = Curriculum(**KEYS).begin(streamed(tmp_path / "f.jsonl"), {}, 1, "x")
    resumed.load(order.state())
    assert [resumed.rows(4, consumed, []) for consumed in range(50)] == [order.rows(4, c, []) for c in range(50)]
