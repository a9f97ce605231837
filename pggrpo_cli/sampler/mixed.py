"""sampler=mixed: what the data set brings and what the policy says, in one step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pggrpo_cli.policy import Policy
from pggrpo_cli.protocols import Finished, OpenSampler, Stateful
from pggrpo_cli.ranges import Range
from pggrpo_cli.sampler.offline import offline_group
from pggrpo_cli.types import DrawKey, Prompt, RolloutGroup, RunContext, StateDict


@dataclass(frozen=True, kw_only=True)
class Mixed:
    """A row that brings completions becomes a group of these, as many as they are: a pair, a demonstration. The others are
    sampled by `online`, any other sampler, with this one's group_size, max_new_tokens and temperature. Held-out prompts
    and the self-check's are always sampled.
    """

    group_size: Annotated[int, Range(ge=1)]
    max_new_tokens: Annotated[int, Range(ge=1)]
    temperature: Annotated[float, Range(ge=0)]
    online: Any

    @contextmanager
    def open(self, context: RunContext) -> Iterator[OpenMixed]:
        online = replace(
            self.online,
            group_size=self.group_size,
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
        )
        with online.open(context) as sampler:
            yield OpenMixed(sampler)


@dataclass(frozen=True, slots=True)
class OpenMixed:
    online: OpenSampler

    def state(self) -> StateDict:
        return self.online.state() if isinstance(self.online, Stateful) else {}

    def load(self, state: StateDict) -> None:
        if isinstance(self.online, Stateful):
            self.online.load(state)

    def sample(
        self, policy: Policy, prompts: Sequence[Prompt], draws: DrawKey, finished: Finished | None = None
    ) -> list[RolloutGroup]:
        groups: dict[int, RolloutGroup] = {}
        if draws.purpose == "rollout":
            brought = [place for place, prompt in enumerate(prompts) if prompt.completion_ids]
            groups = {place: offline_group(policy, prompts[place]) for place in brought}
        asked = [place for place in range(len(prompts)) if place not in groups]
        if finished is not None:
            for place, group in groups.items():
                finished(place, group)

        def of_asked(ordinal: int, group: RolloutGroup) -> None:
            assert finished is not None
            finished(asked[ordinal], group)

        if asked:
            told = None if finished is None else of_asked
            sampled = self.online.sample(policy, [prompts[place] for place in asked], draws, told)
            groups |= zip(asked, sampled, strict=True)
        return [groups[place] for place in range(len(prompts))]
