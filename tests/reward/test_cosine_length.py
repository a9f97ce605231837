"""Hand numbers along the cosine, TRL's function, and what decides on right and wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pggrpo_cli.check import check
from pggrpo_cli.composing import compose
from pggrpo_cli.errors import ConfigError, DataError
from pggrpo_cli.instantiate import component
from pggrpo_cli.reward.cosine_length import CosineLength
from pggrpo_cli.reward.math_verify import MathVerify
from pggrpo_cli.types import RewardContext, Sample, ScoreError

CONTEXT = RewardContext(run_dir=None, device="cpu", seed=1)


class Verdicts:
    """Right where the completion says so."""

    def score(self, samples: Sequence[Sample]) -> list[Any]:
        meant: dict[str, Any] = {"right": 1.0, "half": 0.5, "wrong": 0.0, "worse": -1.0, "none": None}
        return [meant.get(sample.completion, ScoreError(message="broken")) for sample in samples]


REWARD = CosineLength(
    correct=Verdicts(), max_tokens=100, right_short=1.0, right_long=0.5, wrong_short=-1.0, wrong_long=-0.5
)


def sample(completion: str, tokens: int, **columns: Any) -> Sample:
    return Sample(prompt="p", completion=completion, completion_ids=[0] * tokens, finish_reason="stop", columns=columns)


@pytest.mark.parametrize(
    ("completion", "tokens", "expected"),
    [
        *(("right", 0, 1.0), ("right", 50, 0.75), ("right", 100, 0.5), ("right", 250, 0.5), ("half", 50, 0.75)),
        *(("wrong", 0, -1.0), ("wrong", 50, -0.75), ("wrong", 100, -0.5), ("worse", 250, -0.5)),
        ("right", 25, 0.5 + 0.5 * (1 + math.sqrt(0.5)) / 2),
        ("wrong", 75, -0.5 - 0.5 * (1 - math.sqrt(0.5)) / 2),
        ("none", 50, None),
    ],
)
def test_along_the_cosine(completion: str, tokens: int, expected: float | None) -> None:
    assert REWARD.score([sample(completion, tokens)]).scores == [pytest.approx(expected)]


def test_what_decides_is_recorded_and_its_failures_stay_failures() -> None:
    scored = REWARD.score([sample("right", 0), sample("none", 0), sample("?", 0)])
    assert scored.scores == [1.0, None, ScoreError(message="broken")]
    assert scored.columns == {"correct": [1.0, None, None]}


def test_a_verdict_that_needs_something_alive_is_opened() -> None:
    class Opens:
        def open(self, context: RewardContext) -> Any:
            from contextlib import nullcontext

            assert context is CONTEXT
            return nullcontext(Verdicts())

    with replace(REWARD, correct=Opens()).open(CONTEXT) as working:  # type: ignore[arg-type]
        assert working.score([sample("right", 0)]).scores == [1.0]


def test_what_is_no_reward_is_refused() -> None:
    broken = replace(REWARD, correct="exact_answer")  # type: ignore[arg-type]
    with (
        pytest.raises(ConfigError, match=r"`reward.cosine_length.correct._target_`.*no method score"),
        broken.open(CONTEXT),
    ):
        pass


def test_the_configuration_holds_another_reward() -> None:
    cfg = compose("train", ["model=tiny", "reward=cosine_length", "sampler.max_new_tokens=10"], None)
    check(cfg)
    reward = component(cfg.reward.cosine_length, "reward.cosine_length")
    scored = reward.score([sample("It is 7.", 5, answer="7"), sample("It is 8.", 5, answer="7")])
    assert scored.scores == pytest.approx([0.75, -0.75])
    with pytest.raises(DataError, match="no column 'answer'"):
        reward.score([sample("7", 5)])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "reward.cosine_length.correct.pattren=x",
            r"`reward.cosine_length.correct.pattren`: ExactAnswer has no such key",
        ),
        ("reward.cosine_length.max_tokens=0", r"`reward.cosine_length.max_tokens`: 0 is not ≥ 1"),
    ],
)
def test_wrong_keys(words: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        check(compose("train", ["model=tiny", "reward=cosine_length", f"++{words}"], None))


@pytest.mark.oracle
def test_trl() -> None:
    from trl.rewards import get_cosine_scaled_reward

    theirs = get_cosine_scaled_reward(max_len=40)
    ours = replace(REWARD, correct=MathVerify(answer_column="solution"), max_tokens=40)
    texts = [r"\boxed{\frac{1}{3}}", r"\boxed{\frac{1}{2}}"] * 4
    lengths = [1, 1, 13, 13, 40, 40, 77, 77]
    expected = theirs(
        [[{"content": text}] for text in texts], [r"$\frac{1}{3}$"] * 8, [[1] * length for length in lengths]
    )
    rows = [sample(text, length, solution="1/3") for text, length in zip(texts, lengths, strict=True)]
    assert ours.score(rows).scores == pytest.approx(expected)
    assert len(set(expected)) == 6
