"""sampler=hf_generate: transformers' generate, one prompt at a time. The reference, and the fallback for any model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import torch

from pggrpo_cli.engine.draws import position_keys, row_key
from pggrpo_cli.engine.selection import Selection
from pggrpo_cli.engine.stopping import StopRule
from pggrpo_cli.errors import OutOfMemory
from pggrpo_cli.out_of_memory import first_line, is_out_of_memory, release
from pggrpo_cli.policy import Policy
from pggrpo_cli.protocols import Drawn, Finished
from pggrpo_cli.ranges import Range
from pggrpo_cli.types import DrawKey, Prompt, Rollout, RolloutGroup, RunContext
from pggrpo_cli.warn import warn

if TYPE_CHECKING:
    from pggrpo_cli.sampler.native import Native


@dataclass(frozen=True, kw_only=True)
class HfGenerate:
    """generate() with our draws: a logits processor chooses every token, so the law and the keys are the native ones."""

    group_size: Annotated[int, Range(ge=1)]
    max_new_tokens: Annotated[int, Range(ge=1)]
    temperature: Annotated[float, Range(ge=0)]
    top_p: Annotated[float, Range(gt=0, le=1)]
    top_k: Annotated[int, Range(ge=0)]
    min_p: Annotated[float, Range(ge=0, lt=1)]
    stop: list[str]

    @contextmanager
    def open(self, context: RunContext) -> Iterator[OpenHfGenerate]:
        yield OpenHfGenerate(self)


@dataclass(frozen=True, slots=True)
class OpenHfGenerate:
    sampler: HfGenerate

    def sample(
        self, policy: Policy, prompts: Sequence[Prompt], draws: DrawKey, finished: Finished | None = None
    ) -> list[RolloutGroup]:
        return self._sampled(policy, prompts, draws, finished, None)

    def stream(self, policy: Policy, prompts: Sequence[Prompt], draws: DrawKey, drawn: Drawn) -> list[RolloutGroup]:
        return self._sampled(policy, prompts, draws, None, drawn)

    def _sampled(
        self,
        policy: Policy,
        prompts: Sequence[Prompt],
        draws: DrawKey,
        finished: Finished | None,
        drawn: Drawn | None,
    ) -> list[RolloutGroup]:
        selection, stop_rule = selection_of(self.sampler), stop_rule_of(self.sampler, policy)
        size = self.sampler.group_size
        return generate_groups(policy, prompts, size, selection, stop_rule, draws, finished, drawn)


def selection_of(sampler: HfGenerate | Native) -> Selection:
    return Selection(temperature=sampler.temperature, top_p=sampler.top_p, top_k=sampler.top_k, min_p=sampler.min_p)


def stop_rule_of(sampler: HfGenerate | Native, policy: Policy) -> StopRule:
    return StopRule(
        end_token_ids=frozenset(policy.end_token_ids),
        stop=tuple(sampler.stop),
        max_new_tokens=sampler.max_new_tokens,
        tokenizer=policy.tokenizer,
    )


def generate_groups(
    policy: Policy,
    prompts: Sequence[Prompt],
    group_size: int,
    selection: Selection,
    stop_rule: StopRule,
    draws: DrawKey,
    finished: Finished | None = None,
    drawn: Drawn | None = None,
) -> list[RolloutGroup]:
    """Samples `group_size` completions for each prompt with the module's own attention and cache; fewer at a time while
    memory runs out."""
    groups: list[RolloutGroup] = []
    at_once = group_size
    with policy.sampling(), policy.plain_attention(), _own_generation_config(policy.module):
        for ordinal, prompt in enumerate(prompts):
            keys = torch.tensor([row_key(draws, ordinal, sample) for sample in range(group_size)], device=policy.device)
            rollouts: list[Rollout] = []
            while len(rollouts) < group_size:
                part = keys[len(rollouts) : len(rollouts) + at_once]
                told = None if drawn is None else _Telling(drawn, ordinal, len(rollouts), stop_rule)
                try:
                    rollouts += _generate_one(policy, prompt, part, selection, stop_rule, told)
                    continue
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                    said = first_line(error)
                release(policy.device)
                if at_once == 1:
                    raise OutOfMemory(
                        f"`sampler.max_new_tokens`: memory ran out in the rollout of a single completion ({said}). "
                        "Lower it, or data.max_prompt_tokens."
                    )
                at_once = (at_once + 1) // 2
                warn(f"memory ran out in the rollout; the same prompt again with {at_once} completions at a time")
            groups.append(RolloutGroup(prompt=prompt, rollouts=rollouts))
            if finished is not None:
                finished(ordinal, groups[-1])
    return groups


@contextmanager
def _own_generation_config(module: Any) -> Iterator[None]:
    """generate() takes what our configuration leaves open from the module's: repetition penalties, forced tokens …"""
    from transformers import GenerationConfig

    former = module.generation_config
    module.generation_config = GenerationConfig()
    try:
        yield
    finally:
        module.generation_config = former


def _generate_one(
    policy: Policy,
    prompt: Prompt,
    keys: torch.Tensor,
    selection: Selection,
    stop_rule: StopRule,
    told: _Telling | None,
) -> list[Rollout]:
    from transformers import GenerationConfig

    rows = keys.shape[0]
    length = len(prompt.token_ids)
    chooser = _Chooser(selection, keys, length, told)
    input_ids = torch.tensor([prompt.token_ids] * rows, device=policy.device)
    end_ids = sorted(stop_rule.end_token_ids)
    output = policy.module.generate(
        input_ids=input_ids,
        attention_mask=torch.ones_like(input_ids),
        generation_config=GenerationConfig(
            max_new_tokens=stop_rule.max_new_tokens,
            do_sample=False,
            eos_token_id=end_ids or None,
            pad_token_id=end_ids[0] if end_ids else 0,
        ),
        logits_processor=[chooser],
    )
    logprobs = torch.stack(chooser.logprobs, dim=1)
    rollouts: list[Rollout] = []
    for row in range(rows):
        ids = output[row, length:].tolist()
        # Rows that ended early were padded by generate: the stop rule says where, not the token values.
        ends = ((count, stop_rule.reason(ids[:count])) for count in range(1, len(ids) + 1))
        count, reason = next(((count, reason) for count, reason in ends if reason), (len(ids), "length"))
        rollouts.append(
            Rollout(
                completion_ids=torch.tensor(ids[:count]),
                logprobs=logprobs[row, :count].float().cpu(),
                text=stop_rule.tokenizer.decode(ids[:count], skip_special_tokens=True),
                finish_reason=reason,
            )
        )
    return rollouts


class _Chooser:
    """A logits processor that leaves one token: ours."""

    def __init__(
        self, selection: Selection, keys: torch.Tensor, prompt_length: int, told: _Telling | None = None
    ) -> None:
        self._selection, self._keys, self._prompt_length, self._told = selection, keys, prompt_length, told
        self.logprobs: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        position = torch.full_like(self._keys, input_ids.shape[1] - self._prompt_length)
        tokens, logprobs = self._selection.choose(scores.float().clone(), position_keys(self._keys, position))
        self.logprobs.append(logprobs)
        if self._told is not None:
            self._told(tokens.tolist())
        return torch.full_like(scores, float("-inf")).scatter_(1, tokens[:, None], 0.0)


class _Telling:
    """Tells of the tokens of the rows that have not ended; generate() goes on with all of them until the last has."""

    def __init__(self, drawn: Drawn, ordinal: int, first: int, stop_rule: StopRule) -> None:
        self._drawn, self._ordinal, self._first, self._stop_rule = drawn, ordinal, first, stop_rule
        self._rows: list[list[int]] | None = None
        self._ended: set[int] = set()

    def __call__(self, tokens: Sequence[int]) -> None:
        """The next token of every row."""
        rows = self._rows = self._rows or [[] for _ in tokens]
        for row, token in enumerate(tokens):
            if row in self._ended:
                continue
            rows[row].append(token)
            reason = self._stop_rule.reason(rows[row])
            if reason is not None:
                self._ended.add(row)
            self._drawn(self._ordinal, self._first + row, rows[row], reason)
