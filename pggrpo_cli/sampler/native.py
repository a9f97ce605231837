"""sampler=native: our own rollout engine."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Literal
from weakref import WeakKeyDictionary

from pggrpo_cli.compiled.steps import decoding_of
from pggrpo_cli.engine.decoding import decode_groups
from pggrpo_cli.engine.selection import Selection
from pggrpo_cli.engine.steps import OpenSteps, torch_steps
from pggrpo_cli.engine.stopping import StopRule
from pggrpo_cli.errors import ConfigError, OutOfMemory
from pggrpo_cli.out_of_memory import first_line, is_out_of_memory, release
from pggrpo_cli.policy import Policy
from pggrpo_cli.protocols import Drawn, Finished
from pggrpo_cli.ranges import Range
from pggrpo_cli.sampler.hf_generate import generate_groups, selection_of, stop_rule_of
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
    decoding: Literal["auto", "compiled", "torch"]

    @contextmanager
    def open(self, context: RunContext) -> Iterator[OpenNative]:
        yield OpenNative(self)


@dataclass(slots=True)
class OpenNative:
    sampler: Native
    _max_rows: int | None = field(default=None)
    """Since memory ran out; None while it never has."""
    _decided: tuple[Policy, OpenSteps] | None = field(default=None)
    _decoding: str | None = field(default=None)
    """What decoded the latest rollout: "torch", or the compiled code's name; None before the first."""

    def state(self) -> StateDict:
        return {"max_rows": self._max_rows, "decoding": self._decoding}

    def load(self, state: StateDict) -> None:
        self._max_rows, self._decoding = state.get("max_rows"), state.get("decoding", "torch")

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
        if policy.packable:
            return self._decode(policy, prompts, selection, stop_rule, draws, finished, drawn)
        if self.sampler.decoding == "compiled":
            self._not_compiled(f"the model does not run packed ({policy.packable_reason})", policy)
        if _not_told(policy, "generate"):
            print(
                f"sampler: native cannot run this model ({policy.packable_reason}); using generate()", file=sys.stderr
            )
        size = self.sampler.group_size
        return generate_groups(policy, prompts, size, selection, stop_rule, draws, finished, drawn)

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
        size, open_steps = self.sampler.group_size, self._steps_of(policy)
        while True:
            rows = self._max_rows or self.sampler.max_rows
            try:
                return decode_groups(
                    policy, prompts, size, selection, stop_rule, draws, rows, open_steps, finished, drawn
                )
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

    def _steps_of(self, policy: Policy) -> OpenSteps:
        """Compiled decoding where it is possible, unless the configuration says otherwise."""
        if self._decided is None or self._decided[0] is not policy:
            name: str = "torch"
            steps: OpenSteps = torch_steps
            if self.sampler.decoding != "torch":
                compiled = decoding_of(policy, self._decoding)
                if isinstance(compiled, str):
                    self._not_compiled(compiled, policy)
                else:
                    name, steps = compiled.name, compiled.open_steps
            if self._decoding not in (None, name) and _not_told(policy, "other code"):
                warn("tokens may differ from here on: the rollouts before were decoded by other code")
            self._decided, self._decoding = (policy, steps), name
        return self._decided[1]

    def _not_compiled(self, reason: str, policy: Policy) -> None:
        if self.sampler.decoding == "compiled":
            raise ConfigError(
                f"`sampler.decoding`: compiled is not possible here: {reason}. Allowed are auto and torch too, which decode in "
                "torch then."
            )
        if policy.device.type == "cpu" and _not_told(policy, reason):
            print(f"sampler: decoding in torch, which is slower than compiled code: {reason}", file=sys.stderr)


_TOLD: WeakKeyDictionary[Policy, set[str]] = WeakKeyDictionary()


def _not_told(policy: Policy, what: str) -> bool:
    """Whether this is the first time: a run has a sampler to train with and one for held-out prompts."""
    told = _TOLD.setdefault(policy, set())
    new = what not in told
    told.add(what)
    return new
