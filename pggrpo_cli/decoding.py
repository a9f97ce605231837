"""The rollout engine: prompts computed once a group, one flat row of live tokens a step, finished rows gone at once.

It runs the policy's own module through our attention function: no code per model, no second copy of the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from pggrpo_cli.attention import DecodePlan
from pggrpo_cli.draws import position_keys, row_key
from pggrpo_cli.key_values import KeyValueStore
from pggrpo_cli.packed_attention import PackedPlan
from pggrpo_cli.packing import pack
from pggrpo_cli.policy import Policy
from pggrpo_cli.selection import Selection
from pggrpo_cli.stopping import StopRule
from pggrpo_cli.types import DrawKey, FinishReason, Prompt, Rollout, RolloutGroup

PREFILL_TOKENS = 4096
"""Prompt tokens in one forward."""


@dataclass(slots=True)
class _Live:
    """A completion in the making."""

    prompt: int
    key: int
    length: int
    """Keys its row holds."""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: FinishReason = "length"


def decode_groups(
    policy: Policy,
    prompts: Sequence[Prompt],
    group_size: int,
    selection: Selection,
    stop_rule: StopRule,
    draws: DrawKey,
    max_rows: int,
) -> list[RolloutGroup]:
    """Samples `group_size` completions for each prompt, whole groups at a time, at most `max_rows` rows together."""
    per_wave = max(1, max_rows // group_size)
    groups: list[RolloutGroup] = []
    with policy.sampling():
        for first in range(0, len(prompts), per_wave):
            wave = prompts[first : first + per_wave]
            rows = [
                _Live(prompt=index, key=row_key(draws, first + index, sample), length=len(prompt.token_ids))
                for index, prompt in enumerate(wave)
                for sample in range(group_size)
            ]
            _decode_wave(policy, wave, rows, group_size, selection, stop_rule)
            for index, prompt in enumerate(wave):
                members = rows[index * group_size : (index + 1) * group_size]
                rollouts = [_finished(row, stop_rule) for row in members]
                groups.append(RolloutGroup(prompt=prompt, rollouts=rollouts))
    return groups


def _finished(row: _Live, stop_rule: StopRule) -> Rollout:
    return Rollout(
        completion_ids=torch.tensor(row.token_ids, dtype=torch.long),
        logprobs=torch.tensor(row.logprobs, dtype=torch.float32),
        text=stop_rule.tokenizer.decode(row.token_ids, skip_special_tokens=True),
        finish_reason=row.finish_reason,
    )


def _decode_wave(
    policy: Policy,
    prompts: Sequence[Prompt],
    rows: Sequence[_Live],
    group_size: int,
    selection: Selection,
    stop_rule: StopRule,
) -> None:
    device = policy.device
    capacity = max(len(prompt.token_ids) for prompt in prompts) + stop_rule.max_new_tokens
    store = KeyValueStore(len(rows), capacity, policy.compute_dtype)
    logits = _prefill(policy, prompts, store, group_size)
    live = list(rows)
    keys = torch.tensor([row.key for row in live], device=device)
    for position in range(stop_rule.max_new_tokens):
        positions = torch.full_like(keys, position)
        tokens, logprobs = selection.choose(logits, position_keys(keys, positions))
        for row, token, logprob in zip(live, tokens.tolist(), logprobs.tolist(), strict=True):
            row.token_ids.append(token)
            row.logprobs.append(logprob)
        kept = _drop_finished(live, store, stop_rule)
        if not live:
            return
        if len(kept) < len(tokens):
            index = torch.tensor(kept, device=device)
            tokens, keys = tokens[index], keys[index]
        lengths = torch.tensor([row.length for row in live], device=device)
        plan = DecodePlan(store, lengths, max(row.length for row in live) + 1)
        logits = policy.logits(policy.hidden(tokens, lengths, plan))
        for row in live:
            row.length += 1


def _drop_finished(live: list[_Live], store: KeyValueStore, stop_rule: StopRule) -> list[int]:
    """Removes finished rows from `live` and the store, the last row filling each gap; the old places of those kept."""
    places = list(range(len(live)))
    for place in reversed(range(len(live))):
        reason = stop_rule.reason(live[place].token_ids)
        if reason is None:
            continue
        live[place].finish_reason = reason
        last = len(live) - 1
        if place != last:
            store.move(last, place, live[last].length)
            live[place], places[place] = live[last], places[last]
        live.pop()
        places.pop()
    return places


def _prefill(policy: Policy, prompts: Sequence[Prompt], store: KeyValueStore, group_size: int) -> torch.Tensor:
    """Computes each prompt once, stores its keys for all rows of its group → logits of the first tokens [rows, V]."""
    last: list[torch.Tensor] = []
    first = 0
    while first < len(prompts):
        end, tokens = first, 0
        while end < len(prompts) and (end == first or tokens + len(prompts[end].token_ids) <= PREFILL_TOKENS):
            tokens += len(prompts[end].token_ids)
            end += 1
        part = [prompt.token_ids for prompt in prompts[first:end]]
        packed = pack(part, [[] for _ in part]).to(policy.device)
        plan = PackedPlan(packed.groups, policy.compute_dtype, collect=True)
        hidden = policy.hidden(packed.input_ids, packed.position_ids, plan)
        for index, group in enumerate(packed.groups):
            span = slice(group.start, group.start + group.num_tokens)
            last.append(hidden[span.stop - 1])
            for layer, (keys, values) in enumerate(zip(plan.keys, plan.values, strict=True)):
                store.fill(layer, (first + index) * group_size, group_size, keys[:, span], values[:, span])
        first = end
    return policy.logits(torch.stack(last)).repeat_interleave(group_size, dim=0)
