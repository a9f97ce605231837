"""Rewards at work: weighted, checked, and never silently 0."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from pggrpo_cli.config import RewardSettings
from pggrpo_cli.errors import Unavailable, UserCodeError
from pggrpo_cli.prompts import PromptFormat
from pggrpo_cli.scoring.answers import Answers
from pggrpo_cli.scoring.calls import NamedReward
from pggrpo_cli.scoring.messages import decode_answers, encode_answers, from_bytes, to_bytes
from pggrpo_cli.scoring.scorer import Scorer
from pggrpo_cli.types import Row, Sample, ScoreError, Scores

FORMAT = PromptFormat(system_prompt=None, prompt_suffix="!", max_prompt_tokens=None, overlong="drop")


@dataclass(frozen=True)
class Returns:
    function: Callable[[Sequence[Sample]], Any]

    def score(self, samples: Sequence[Sample]) -> Any:
        return self.function(samples)


def samples(*texts: str) -> list[Sample]:
    return [Sample(prompt="p", completion=t, completion_ids=[1], finish_reason="stop", columns={}) for t in texts]


EACH: dict[str, Any] = {
    **{"weight": 1.0, "scale": 1.0, "clip": None, "gate": None, "applies_to": None, "isolated": False},
    **{"batch_size": None, "timeout_s": 60.0, "on_error": "raise"},
}


def scorer(max_error_share: float = 1.0, **rewards: Any) -> Scorer:
    """name=(function, weight or keys of the reward's node)."""
    named = {}
    for name, (function, keys) in rewards.items():
        keys = keys if isinstance(keys, dict) else {"weight": keys}
        named[name] = NamedReward(reward=Returns(function), settings=RewardSettings(**EACH | keys))
    return Scorer(named, max_error_share=max_error_share)


def test_weighted_sum_of_what_applies() -> None:
    working = scorer(a=(lambda s: [1, 0.5, None], 2.0), b=(lambda s: [None, 4, None], 0.25))
    scored = working.score(samples("x", "y", "z"))
    assert scored.terms == {"a": [1.0, 0.5, None], "b": [None, 4.0, None]}
    assert scored.rewards[:2] == [2.0, 2.0]
    assert math.isnan(scored.rewards[2])


@pytest.mark.parametrize(
    "values",
    [
        [1, 0],
        (1, 0),
        [True, False],
        [np.float32(1), np.int64(0)],
        [torch.tensor(1.0), torch.tensor(0)],
        [np.bool_(True), np.array([0.0])],
        np.array([1.0, 0.0]),
        torch.tensor([1.0, 0.0]),
    ],
)
@pytest.mark.fault("T14")
def test_numbers_of_every_kind_are_taken(values: Any) -> None:
    assert scorer(a=(lambda s: values, 1.0)).score(samples("x", "y")).rewards == [1.0, 0.0]


@pytest.mark.parametrize(
    "values",
    [
        *(["1", 0], [math.nan, 0], [math.inf, 0], [[1], 0], [{}, 0], [object(), 0], [10**400, 0]),
        *([torch.tensor([1.0, 2.0]), 0], [np.array([]), 0], np.array([[1.0], [0.0]])),
    ],
)
@pytest.mark.fault("T14")
def test_nonsense_names_the_reward_and_the_completion(values: Any) -> None:
    with pytest.raises(UserCodeError, match=r"`reward.a`: returned .* \(for the completion 'xyz'\)"):
        scorer(a=(lambda s: values, 1.0)).score(samples("xyz", "y"))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        *(([1], "1 scores for 2"), (None, "NoneType"), (3.0, "float"), ("ab", "str"), (b"ab", "bytes")),
        *((np.array(3.0), "ndarray"), (torch.tensor(3.0), "Tensor"), (np.float64(1), "float64")),
    ],
)
@pytest.mark.fault("T14")
def test_a_wrong_number_of_scores(value: Any, message: str) -> None:
    with pytest.raises(UserCodeError, match=message):
        scorer(a=(lambda s: value, 1.0)).score(samples("x", "y"))


@pytest.mark.fault("T12")
def test_a_reward_that_raises_keeps_its_traceback() -> None:
    with pytest.raises(UserCodeError, match=r"`reward.a`: raised ZeroDivisionError") as caught:
        scorer(a=(lambda s: 1 / 0, 1.0)).score(samples("x"))
    assert str(caught.value.__cause__).rstrip().endswith("ZeroDivisionError: division by zero")


@pytest.mark.fault("T15")
def test_rewards_do_not_touch_the_random_state() -> None:
    def mischief(_: Sequence[Sample]) -> list[float]:
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        return [1.0]

    def draws() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(5)
    expected = draws()
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(5)
    scorer(a=(mischief, 1.0)).score(samples("x"))
    assert draws() == expected


@pytest.mark.parametrize("in_use", [True, False])
@pytest.mark.fault("T15")
def test_rewards_do_not_touch_the_random_state_of_gpus(in_use: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With torch.cuda's own functions replaced: what it keeps of two GPUs is what it puts back, in the order of the calls."""
    done: list[str] = []

    def kept() -> list[torch.Tensor]:
        done.append("kept")
        return [torch.tensor([1]), torch.tensor([2])]

    def mischief(_: Sequence[Sample]) -> list[float]:
        done.append("scored")
        return [1.0]

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: in_use)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", kept)
    monkeypatch.setattr(
        torch.cuda, "set_rng_state_all", lambda put: done.append(f"put back {[int(one) for one in put]}")
    )
    scorer(a=(mischief, 1.0)).score(samples("x"))
    assert done == (["kept", "scored", "put back [1, 2]"] if in_use else ["scored"])


def test_scale_clip_and_weight_in_this_order() -> None:
    keys = {"weight": 3.0, "scale": 0.1, "clip": [0.0, 0.5]}
    scored = scorer(a=(lambda s: [-4, 2, 40, None], keys)).score(samples("w", "x", "y", "z"))
    assert scored.terms["a"] == [-4.0, 2.0, 40.0, None]
    assert scored.values["a"] == pytest.approx([0.0, 0.2, 0.5, None])
    assert scored.rewards[:3] == pytest.approx([0.0, 0.6, 1.5])


def test_a_gate_opens_where_the_other_reward_is_positive() -> None:
    working = scorer(
        right=(lambda s: [1, 0, None, 1], 1.0),
        style=(lambda s: [0.5, 0.5, 0.5, None], {"gate": "right", "weight": 2.0}),
    )
    scored = working.score(samples("a", "b", "c", "d"))
    assert scored.terms["style"] == [0.5, 0.5, 0.5, None]
    assert scored.values["style"] == [0.5, 0.0, 0.0, None]
    assert scored.rewards == [2.0, 0.0, 0.0, 1.0]


def test_gates_in_a_ring_look_at_what_was_scored() -> None:
    working = scorer(a=(lambda s: [1, 0], {"gate": "b"}), b=(lambda s: [1, 1], {"gate": "a"}))
    assert working.score(samples("x", "y")).values == {"a": [1.0, 0.0], "b": [1.0, 0.0]}


def test_a_reward_sees_the_rows_it_applies_to() -> None:
    def length(batch: Sequence[Sample]) -> list[float]:
        return [float(len(sample.completion)) for sample in batch]

    rows = [
        Sample(prompt="p", completion=t, completion_ids=[1], finish_reason="stop", columns={"data_source": source})
        for t, source in (("a", "maths"), ("bb", "code"), ("ccc", "maths"))
    ]
    scored = scorer(a=(length, {"applies_to": ["maths"]})).score(rows)
    assert scored.terms["a"] == [1.0, None, 3.0]
    assert math.isnan(scored.rewards[1])


def picky(batch: Sequence[Sample]) -> list[float]:
    if any(sample.completion == "bad" for sample in batch):
        raise ValueError("not this one")
    return [1.0] * len(batch)


@pytest.mark.fault("T12")
@pytest.mark.parametrize(("on_error", "instead"), [("skip", None), (-1.0, -1.0)])
def test_what_becomes_of_a_failure(on_error: Any, instead: float | None) -> None:
    working = scorer(a=(picky, {"on_error": on_error, "batch_size": 1}))
    scored = working.score(samples("x", "bad", "y"))
    assert scored.terms["a"] == [1.0, instead, 1.0]
    assert scored.errors == 1
    (warning,) = working.warnings
    assert "raised ValueError: not this one (for the completion 'bad')" in warning
    assert "in picky" in warning
    working.score(samples("bad", "x", "y"))
    assert len(working.warnings) == 1


@pytest.mark.fault("T12")
def test_what_a_reward_notes_is_shown_once() -> None:
    working = scorer(a=(lambda s: Scores(scores=[1.0] * len(s), notes=["cut"]), {"batch_size": 1}))
    assert working.score(samples("x", "y")).rewards == [1.0, 1.0]
    working.score(samples("z"))
    assert working.warnings == ["note: `reward.a`: cut"]


def test_what_a_process_of_its_own_says_arrives() -> None:
    said = Answers(
        answers=[1.0, None, ScoreError(message="no")], metrics={"m": 2}, columns={"c": [1, None, "x"]}, notes=["cut"]
    )
    assert decode_answers(from_bytes(to_bytes(encode_answers(said)))) == said


def test_too_many_failures_end_the_run() -> None:
    working = scorer(0.5, a=(picky, {"on_error": "skip", "batch_size": 1}))
    assert working.score(samples("bad", "x")).errors == 1
    with pytest.raises(UserCodeError, match=r"2 of 3 failed"):
        working.score(samples("bad", "bad", "x"))


GONE, UNREADABLE = ScoreError(message="it is down", passing=True), ScoreError(message="no number")


@pytest.mark.fault("T16")
@pytest.mark.parametrize(
    ("on_error", "answers", "kind", "words"),
    [
        ("raise", [1.0, GONE, GONE], Unavailable, "`reward.a`: it is down. 2 of 3 failed"),
        ("raise", [GONE, GONE, UNREADABLE], UserCodeError, "`reward.a`: no number .* 3 of 3 failed"),
        # what may be otherwise later is the reason to stop, beside an answer that would have been borne
        ("skip", [UNREADABLE, GONE, GONE, 1.0], Unavailable, "`reward.a`: it is down. 3 of 4 failed"),
        ("skip", [GONE, UNREADABLE, UNREADABLE, UNREADABLE], UserCodeError, "`reward.a`: no number .* 4 of 4 failed"),
    ],
)
def test_whether_a_run_that_ends_may_go_on_later(
    on_error: str, answers: list[Any], kind: type[Exception], words: str
) -> None:
    working = scorer(0.5, a=(lambda batch: answers, {"on_error": on_error}))
    with pytest.raises(kind, match=words):
        working.score(samples(*"abcd"[: len(answers)]))


def test_the_dry_run_calls_every_reward_on_real_rows() -> None:
    seen: list[Sample] = []

    def look(batch: Sequence[Sample]) -> list[float]:
        seen.extend(batch)
        return [0.0] * len(batch)

    scorer(a=(look, 1.0)).dry_run([Row(prompt="2 + 2", columns={"answer": 4})], FORMAT)
    assert {sample.prompt for sample in seen} == {"2 + 2!"}
    assert {sample.completion for sample in seen} == {"", "0", "4"}
    with pytest.raises(UserCodeError):
        scorer(a=(lambda s: 1 / 0, 1.0)).dry_run([Row(prompt="p")], FORMAT)
