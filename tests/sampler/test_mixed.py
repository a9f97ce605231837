"""Given and sampled groups side by side, each in its place."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pggrpo_cli import check
from pggrpo_cli.composing import compose
from pggrpo_cli.errors import ConfigError
from pggrpo_cli.policy import Policy
from pggrpo_cli.sampler.mixed import Mixed
from pggrpo_cli.sampler.native import Native
from pggrpo_cli.types import DrawKey, OfflineCompletion, Prompt, RolloutGroup, RunContext
from tests.command_line import run
from tests.conftest import random_prompts

DRAWS = DrawKey(seed=1, purpose="rollout", step=1)
SHARED = {"group_size": 3, "max_new_tokens": 5, "temperature": 1.0}
ONLINE = Native(top_p=1.0, top_k=0, min_p=0.0, stop=[], max_rows=256, decoding="auto", **SHARED)
MIXED = Mixed(online=ONLINE, **SHARED)


def with_completions(prompt: Prompt, *preferences: float | None) -> Prompt:
    completions = tuple(OfflineCompletion(content="x", preference=one) for one in preferences)
    ids = tuple((65 + place, 66) for place in range(len(preferences)))
    return replace(prompt, row=replace(prompt.row, completions=completions), completion_ids=ids)


@pytest.fixture
def prompts() -> list[Prompt]:
    a, b, c, d = random_prompts([4, 5, 3, 6])
    return [with_completions(a, 1.0, 0.0), b, with_completions(c, None), d]


def test_each_row_gives_what_it_is(policy: Policy, context: RunContext, prompts: list[Prompt]) -> None:
    told: dict[int, RolloutGroup] = {}
    with MIXED.open(context) as sampler, ONLINE.open(context) as online:
        groups = sampler.sample(policy, prompts, DRAWS, told.__setitem__)
        alone = online.sample(policy, [prompts[1], prompts[3]], DRAWS)
    assert [group.prompt for group in groups] == prompts
    assert [[rollout.preference for rollout in group.rollouts] for group in groups] == [
        [1.0, 0.0], [None] * 3, [None], [None] * 3,
    ]  # fmt: skip
    assert [[rollout.chosen for rollout in group.rollouts] for group in groups] == [
        [True, False], [False] * 3, [True], [False] * 3,
    ]  # fmt: skip
    assert [group.rollouts[0].logprobs is None for group in groups] == [True, False, True, False]
    for one, other in zip((groups[1], groups[3]), alone, strict=True):
        for a, b in zip(one.rollouts, other.rollouts, strict=True):
            assert torch.equal(a.completion_ids, b.completion_ids)
    assert {place: group.prompt for place, group in told.items()} == dict(enumerate(prompts))


def test_held_out_prompts_are_sampled(policy: Policy, context: RunContext, prompts: list[Prompt]) -> None:
    held_out = replace(MIXED, group_size=1, max_new_tokens=2)
    with held_out.open(context) as sampler:
        groups = sampler.sample(policy, prompts, replace(DRAWS, purpose="evaluation"))
    assert all(len(group.rollouts) == 1 and group.rollouts[0].logprobs is not None for group in groups)
    assert all(len(group.rollouts[0].completion_ids) <= 2 for group in groups)


def test_only_given_rows(policy: Policy, context: RunContext, prompts: list[Prompt]) -> None:
    with MIXED.open(context) as sampler:
        (group,) = sampler.sample(policy, prompts[:1], DRAWS)
        sampler.load({"max_rows": 5})
        assert sampler.state() == {"max_rows": 5, "decoding": "torch"}
    assert [rollout.finish_reason for rollout in group.rollouts] == ["offline"] * 2


def test_another_sampler_within_takes_the_outer_keys() -> None:
    cfg = compose("train", ["sampler=mixed", "sampler@sampler.online=hf_generate", "sampler.group_size=4"])
    check.check(cfg)
    assert cfg.sampler.online._target_.endswith("HfGenerate")
    assert cfg.sampler.online.group_size == 4
    with pytest.raises(ConfigError, match=r"`sampler\.online\.group_size`: 2 is not sampler\.group_size=8"):
        check.check(compose("train", ["sampler=mixed", "sampler.online.group_size=2"]))
    with pytest.raises(ConfigError, match=r"`sampler\.online\.top_k`: -1 is not ≥ 0"):
        check.check(compose("train", ["sampler=mixed", "sampler.online.top_k=-1"]))


def test_the_experiment_runs(tmp_path: Path) -> None:
    """The real program on the tiny model, a pair file as `make preferences` writes it."""
    pairs = [
        {
            "prompt": [{"role": "user", "content": f"{a} + {b} ="}],
            "chosen": [{"role": "assistant", "content": str(a + b)}],
            "rejected": [{"role": "assistant", "content": "no"}],
            "answer": str(a + b),
        }
        for a in range(3)
        for b in range(3)
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    words = ["experiment=mixed_preferences", "debug=fast", "data.sources.pairs.path=pairs.jsonl", "logger=[]"]
    ended = run(["train", *words, "trainer.prompts_per_step=4", "hydra.run.dir=run"], tmp_path)
    assert ended.returncode == 0, ended.stderr
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    for line in lines[1:]:
        assert (line["sources/sums/prompts"], line["sources/pairs/prompts"]) == (3, 1)
        assert line["rewards/preference/mean"] == 0.5
        assert line["sources/pairs/reward"] == 0.5
        assert line["nll"] > 0
        assert "eval/sources/sums/reward" in line
    samples = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").open(encoding="utf-8")]
    assert {"offline", "length"} <= {sample["finish_reason"] for sample in samples}
