"""sampler=native: our own rollout engine."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated

from pggrpo_cli.engine.decoding import decode_groups
from pggrpo_cli.engine.selection import Selection
from pggrpo_cli.engine.stopping import StopRule
from pggrpo_cli.errors import OutOfMemory
from pggrpo_cli.out_of_memory import first_line, is_out_of_memory, release
from pggrpo_cli.policy import Policy
from pggrpo_cli.protocols import Drawn, Finished
from pggrpo_cli.ranges import Range
from pggrpo_cli.sampler.hf_generate import generate_groups
from pggrpo_cli.types import DrawKey, Prompt, RolloutGroup, RunContext, StateDict
from pggrpo_cli.warn import warn


@dataclass(frozen=True, kw_only=True)
class Native:
    """Prompts computed once a group, finished rows dropped, keyed draws; see engine/decoding.py.

    A model that cannot run packed is sampled by transformers' generate instead, with the same draws, and the run says
    so in one line.
    """

    group_size: Annotated[int, Range(ge=1)]
    max_new_tokens: Annotated[int, Range(ge=1)]
    temperature: Annotated[float, Range(ge=0)]
    top_p: Annotated[float, Range(gt=0, le=1)]
    top_k: Annotated[int, Range(ge=0)]
    min_p: Annotated[float, Range(ge=0, lt=1)]
    stop: list[str]
    max_rows: Annotated[int, Range(ge=1)]

    @contextmanager
    def open(self, context: RunContext) -> Iterator[OpenNative]:
        yield OpenNative(self)


@dataclass(slots=True)
class OpenNative:
    sampler: Native
    _said: bool = field(default=False)
    _max_rows: int | None = field(default=None)
    """Since memory ran out; None while it never has."""

    def state(self) -> StateDict:
        return {"max_rows": self._max_rows}

    def load(self, state: StateDict) -> None:
        self._max_rows = state.get("max_rows")

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
        config = self.sampler
        selection = Selection(
            temperature=config.temperature, top_p=config.top_p, top_k=config.top_k, min_p=config.min_p
        )
        stop_rule = StopRule(
            end_token_ids=frozenset(policy.end_token_ids),
            stop=tuple(config.stop),
            max_new_tokens=config.max_new_tokens,
            tokenizer=policy.tokenizer,
        )
        if policy.packable:
            return self._decode(policy, prompts, selection, stop_rule, draws, finished, drawn)
        if not self._said:
            print(
                f"sampler: native cannot run this model ({policy.packable_reason}); using generate()", file=sys.stderr
            )
            self._said = True
        return generate_groups(policy, prompts, config.group_size, selection, stop_rule, draws, finished, drawn)

    def _decode(
        self,
        policy: Policy,
        prompts: Sequence[Prompt],
        selection: Selection,
        stop_rule: StopRule,
        draws: DrawKey,
        finished: Finished | None,
        drawn: Drawn | None,
    ) -> list[RolloutGroup]:
        """With fewer rows at a time while memory runs out: a completion's random numbers do not depend on it."""
        size = self.sampler.group_size
        while True:
            rows = self._max_rows or self.sampler.max_rows
            try:
                return decode_groups(policy, prompts, size, selection, stop_rule, draws, rows, finished, drawn)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                said = first_line(error)
            release(policy.device)
            used = min(rows, len(prompts) * size)
            if used <= size:
                raise OutOfMemory(
                    f"`sampler.group_size`: memory ran out in the rollout of a single group of {size} ({said}). "
                    "Lower it, or sampler.max_new_tokens."
                )
            self._max_rows = max(size, used // 2)
            warn(f"memory ran out in the rollout; the same prompts again with sampler.max_rows={self._max_rows}")
