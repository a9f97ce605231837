"""The task's own scorer."""

from __future__ import annotations

import pytest

from pggrpo_cli.data.reasoning_gym import ReasoningGym as Data
from pggrpo_cli.errors import DataError
from pggrpo_cli.reward.reasoning_gym import ReasoningGym
from pggrpo_cli.types import Sample

DATA = Data(task="leg_counting", params={}, size=6, eval_size=1, data_seed=0, as_chat=True)


def test_the_right_answer_scores_one_and_others_less() -> None:
    rows = DATA.load(1).train

    def score(pattern: str | None, text: str) -> float | None:
        row = rows[0]
        text = text.format(row.columns["answer"])
        sample = Sample(
            prompt=row.prompt, completion=text, completion_ids=[0], finish_reason="stop", columns=row.columns
        )
        return ReasoningGym(pattern=pattern).score([sample])[0]

    assert score(None, " {} ") == 1.0
    assert score(None, "no idea") < 1.0
    assert score(r"<a>(.*?)</a>", "so <a>{}</a>.") == 1.0
    assert score(r"<a>(.*?)</a>", "{}") < 1.0


def test_rows_of_another_source_are_refused() -> None:
    sample = Sample(prompt="p", completion="1", completion_ids=[0], finish_reason="stop", columns={})
    with pytest.raises(DataError, match="name no task"):
        ReasoningGym(pattern=None).score([sample])
