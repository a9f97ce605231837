"""What only shows when the parts of a run are seen together."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from pggrpo_cli.check import checked
from pggrpo_cli.composing import compose
from pggrpo_cli.errors import ConfigError
from pggrpo_cli.instantiate import component
from pggrpo_cli.rollouts import why_nothing_trains
from pggrpo_cli.row_loading import load_rows
from pggrpo_cli.together import check_together
from pggrpo_cli.types import Rollout, ScoredGroup
from tests.conftest import make_prompts


def together(file: Path, *words: str) -> None:
    words = ("model=tiny", "data=jsonl", f"data.path={file}", "data.eval_size=0", *words)
    config = checked(compose("train", list(words)))
    check_together(config, component(config.loss, "loss"), component(config.sampler, "sampler"), load_rows(config)[0])


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        (
            ["maths", "code"],
            r"`reward.format.applies_to`: .* of mahts, .* Did you mean maths\? There are: code, maths.",
        ),
        ([None, None], r"`reward.format.applies_to`: .* There are: none, for no row has that column"),
    ],
)
def test_a_reward_that_would_never_apply_is_refused(tmp_path: Path, sources: list[str | None], said: str) -> None:
    rows = [{"prompt": f"p{i}", "answer": "1"} | ({"data_source": s} if s else {}) for i, s in enumerate(sources)]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ConfigError, match=said):
        together(file, "reward=[exact_answer,format]", "reward.format.applies_to=[mahts]")
    if sources[0]:
        together(file, "reward=[exact_answer,format]", "reward.format.applies_to=[mahts,code]")


@pytest.mark.parametrize(
    ("rewards", "words"),
    [
        ([[math.nan, math.nan], [math.nan, math.nan]], "no reward applies"),
        ([[1.0, 1.0], [math.nan, 0.0]], "in every group all completions have the same reward"),
        ([[1.0, 0.0], [0.0, 0.0]], "every completion is masked or filtered"),
    ],
)
def test_why_a_step_trains_nothing(rewards: list[list[float]], words: str) -> None:
    (prompt,) = make_prompts([[1]])
    rollout = Rollout(completion_ids=torch.tensor([5]), logprobs=None, text="x", finish_reason="stop")
    groups = [
        ScoredGroup(prompt=prompt, rollouts=[rollout] * 2, rewards=one, reward_terms={}, advantages=[0.0, 0.0])
        for one in rewards
    ]
    assert words in why_nothing_trains(groups)
