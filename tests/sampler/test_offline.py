"""The data set's own completions as groups."""

from __future__ import annotations

import pytest

from pggrpo_cli.errors import DataError
from pggrpo_cli.policy import Policy
from pggrpo_cli.sampler.offline import Offline
from pggrpo_cli.types import DrawKey, OfflineCompletion, Prompt, Row, RunContext

DRAWS = DrawKey(seed=1, purpose="rollout", step=1)


def prompt(policy: Policy) -> Prompt:
    texts = ("yes", "no")
    pair = tuple(OfflineCompletion(content=t, preference=p) for t, p in zip(texts, (1.0, 0.0), strict=True))
    ids = tuple((*policy.tokenizer(t)["input_ids"], policy.tokenizer.eos_token_id) for t in texts)
    row = Row(prompt="p", completions=pair, source="f.jsonl:3")
    return Prompt(row=row, index=0, text="p", token_ids=(1,), completion_ids=ids)


def test_a_pair_is_a_group_of_two(policy: Policy, context: RunContext) -> None:
    with Offline(group_size=2, temperature=1.0).open(context) as sampler:
        (group,) = sampler.sample(policy, [prompt(policy)], DRAWS)
    assert [rollout.text for rollout in group.rollouts] == ["yes", "no"]
    assert [rollout.preference for rollout in group.rollouts] == [1.0, 0.0]
    assert all(rollout.finish_reason == "offline" and rollout.logprobs is None for rollout in group.rollouts)
    assert all(rollout.completion_ids[-1] == policy.tokenizer.eos_token_id for rollout in group.rollouts)


def test_rows_of_another_size_are_refused(policy: Policy, context: RunContext) -> None:
    with (
        Offline(group_size=1, temperature=1.0).open(context) as sampler,
        pytest.raises(DataError, match=r"f.jsonl:3 brings 2 completions, sampler.group_size is 1"),
    ):
        sampler.sample(policy, [prompt(policy)], DRAWS)
