"""sampler=offline: the completions that the data set brings. DPO, SFT or PG-GRPO on a preference set, the same loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import torch

from pggrpo_cli.errors import DataError
from pggrpo_cli.protocols import Finished
from pggrpo_cli.ranges import Range
from pggrpo_cli.types import DrawKey, Prompt, Rollout, RolloutGroup, RunContext


@dataclass(frozen=True, kw_only=True)
class Offline:
    """A preference pair is a group of two, chosen first; its reward `preference` is 1 and 0. Nothing is sampled.

    `group_size` is what a row brings (2 for pairs, 1 for sft); temperature is that of the log-probabilities.
    """

    group_size: Annotated[int, Range(ge=1)]
    temperature: Annotated[float, Range(gt=0)]

    @contextmanager
    def open(self, context: RunContext) -> Iterator[OpenOffline]:
        yield OpenOffline(self.group_size)


@dataclass(frozen=True, slots=True)
class OpenOffline:
    group_size: int

    def sample(
        self, policy: Any, prompts: Sequence[Prompt], draws: DrawKey, finished: Finished | None = None
    ) -> list[RolloutGroup]:
        for prompt in prompts:
            self._check(prompt)
        return [offline_group(policy, prompt) for prompt in prompts]

    def _check(self, prompt: Prompt) -> None:
        if len(prompt.completion_ids) != self.group_size:
            raise DataError(
                f"`sampler`: {prompt.row.source or 'a row'} brings {len(prompt.completion_ids)} completions, "
                f"sampler.group_size is {self.group_size}. sampler=offline needs data with completions, such as "
                "data=preference_jsonl (2 a row) or rows with a completion column (1 a row, sampler.group_size=1); where "
                "some rows bring completions and others none, sampler=mixed takes both."
            )


def offline_group(policy: Any, prompt: Prompt) -> RolloutGroup:
    """The completions that come with a prompt."""
    rollouts = [
        Rollout(
            completion_ids=torch.tensor(ids, dtype=torch.long),
            logprobs=None,
            text=policy.tokenizer.decode(ids, skip_special_tokens=True),
            finish_reason="offline",
            preference=completion.preference,
        )
        for ids, completion in zip(prompt.completion_ids, prompt.row.completions, strict=True)
    ]
    return RolloutGroup(prompt=prompt, rollouts=rollouts)
