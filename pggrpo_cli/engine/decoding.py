"""The rollout engine: prompts computed once a group, one flat row of live tokens a step, finished rows gone at once.

It runs the policy's own module through our attention function: no code per model, no second copy of the weights. Rows
that become free are given to the next group, so the batch stays full while there are prompts left.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from pggrpo_cli.engine.draws import position_keys, row_key
from pggrpo_cli.engine.selection import Selection
from pggrpo_cli.engine.steps import Capacity, LiveRows, OpenSteps, Steps
from pggrpo_cli.engine.stopping import StopRule
from pggrpo_cli.policy import Policy
from pggrpo_cli.protocols import Drawn, Finished
from pggrpo_cli.types import DrawKey, FinishReason, Prompt, Rollout, RolloutGroup

PREFILL_TOKENS = 4096
"""Prompt tokens in one forward, unless a single prompt is longer."""


@dataclass(slots=True)
class _Row:
    """A completion in the making."""

    prompt: int
    sample: int
    key: int
    slot: int = -1
    """Where its prompt's keys are stored, while it is live."""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: FinishReason = "length"

    @property
    def held(self) -> int:
        """Own keys in the store: the newest token has not been fed yet."""
        return max(0, len(self.token_ids) - 1)


def decode_groups(
    policy: Policy,
    prompts: Sequence[Prompt],
    group_size: int,
    selection: Selection,
    stop_rule: StopRule,
    draws: DrawKey,
    max_rows: int,
    open_steps: OpenSteps,
    finished: Finished | None = None,
    drawn: Drawn | None = None,
) -> list[RolloutGroup]:
    """Samples `group_size` completions for each prompt, at most `max_rows` (but a whole group) at a time. `finished` is
    told of each group when its last completion ends, `drawn` of each token."""
    if not prompts:
        return []
    rows = [
        [_Row(prompt=index, sample=sample, key=row_key(draws, index, sample)) for sample in range(group_size)]
        for index in range(len(prompts))
    ]
    groups: dict[int, RolloutGroup] = {}
    unfinished = [group_size] * len(prompts)
    capacity = _capacity(prompts, group_size, max(max_rows, group_size), stop_rule.max_new_tokens)
    with open_steps(policy, capacity) as steps:
        batch = _Batch(steps, capacity, prompts, group_size, stop_rule, policy.device)
        waiting = deque(rows)
        while waiting or batch.live:
            batch.admit(waiting)
            live = list(batch.live)
            ended = batch.choose(selection)
            if drawn is not None:
                _tell(drawn, live, ended)
            for row in ended:
                unfinished[row.prompt] -= 1
                if unfinished[row.prompt] == 0:
                    rollouts = [_rollout(one, stop_rule) for one in rows[row.prompt]]
                    groups[row.prompt] = RolloutGroup(prompt=prompts[row.prompt], rollouts=rollouts)
                    if finished is not None:
                        finished(row.prompt, groups[row.prompt])
            batch.feed()
    return [groups[index] for index in range(len(prompts))]


def _capacity(prompts: Sequence[Prompt], group_size: int, max_rows: int, max_new_tokens: int) -> Capacity:
    rows = min(max_rows, len(prompts) * group_size)
    return Capacity(
        # Groups whose rows have nearly all ended still hold a slot: twice as many as fit into the rows when new.
        slots=min(len(prompts), 2 * (rows // group_size)),
        prompt_tokens=max(len(prompt.token_ids) for prompt in prompts),
        rows=rows,
        row_tokens=max_new_tokens,
    )


def _tell(drawn: Drawn, live: Sequence[_Row], ended: Sequence[_Row]) -> None:
    over = {(row.prompt, row.sample) for row in ended}
    for row in live:
        reason = row.finish_reason if (row.prompt, row.sample) in over else None
        drawn(row.prompt, row.sample, row.token_ids, reason)


def _rollout(row: _Row, stop_rule: StopRule) -> Rollout:
    return Rollout(
        completion_ids=torch.tensor(row.token_ids, dtype=torch.long),
        logprobs=torch.tensor(row.logprobs, dtype=torch.float32),
        text=stop_rule.tokenizer.decode(row.token_ids, skip_special_tokens=True),
        finish_reason=row.finish_reason,
    )


class _Batch:
    """The live rows, the prompts they share, and the logits [rows, V] of their next tokens."""

    def __init__(
        self,
        steps: Steps,
        capacity: Capacity,
        prompts: Sequence[Prompt],
        group_size: int,
        stop_rule: StopRule,
        device: torch.device,
    ) -> None:
        self.live: list[_Row] = []
        self._slots: list[int] = []  # the prompt in each live slot
        self._steps, self._prompts, self._group_size, self._stop_rule = steps, prompts, group_size, stop_rule
        self._device, self._max_rows, self._max_slots = device, capacity.rows, capacity.slots
        self._logits = torch.empty(0)
        self._keys = torch.empty(0, dtype=torch.long, device=device)

    def admit(self, waiting: deque[list[_Row]]) -> None:
        """Takes in groups while there is room, their prompts computed together."""
        admitted: list[list[_Row]] = []
        tokens = 0
        rows, slots = self._max_rows - len(self.live), self._max_slots - len(self._slots)
        while waiting and rows >= (len(admitted) + 1) * self._group_size and slots > len(admitted):
            tokens += len(self._prompts[waiting[0][0].prompt].token_ids)
            if admitted and tokens > PREFILL_TOKENS:
                self._prefill(admitted)
                rows, slots = self._max_rows - len(self.live), self._max_slots - len(self._slots)
                admitted, tokens = [], len(self._prompts[waiting[0][0].prompt].token_ids)
            admitted.append(waiting.popleft())
        if admitted:
            self._prefill(admitted)

    def choose(self, selection: Selection) -> list[_Row]:
        """Draws every row's next token; rows that end with it leave, and are returned."""
        positions = torch.tensor([len(row.token_ids) for row in self.live], device=self._device)
        tokens, logprobs = self._steps.choose(selection, self._logits, position_keys(self._keys, positions))
        for row, token, logprob in zip(self.live, tokens.tolist(), logprobs.tolist(), strict=True):
            row.token_ids.append(token)
            row.logprobs.append(logprob)
        kept, ended = self._drop_finished()
        if ended:
            self._keys = self._keys[torch.tensor(kept, dtype=torch.long, device=self._device)]
        return ended

    def feed(self) -> None:
        """The newest token of every row through the model → the logits of the next."""
        if not self.live:
            self._logits = self._logits[:0]
            return
        live = LiveRows(
            slots=[row.slot for row in self.live],
            held=[row.held for row in self.live],
            prompt_lengths=[len(self._prompts[prompt].token_ids) for prompt in self._slots],
        )
        self._logits = self._steps.next_logits([row.token_ids[-1] for row in self.live], live)

    def _prefill(self, groups: Sequence[Sequence[_Row]]) -> None:
        """Computes the groups' prompts, and seats their rows with the logits of first tokens."""
        prompts = [self._prompts[group[0].prompt].token_ids for group in groups]
        logits = self._steps.prefill(prompts, len(self._slots)).repeat_interleave(self._group_size, dim=0)
        for members in groups:
            for row in members:
                row.slot = len(self._slots)
                self.live.append(row)
            self._slots.append(members[0].prompt)
        keys = torch.tensor([row.key for members in groups for row in members], device=self._device)
        self._logits = torch.cat([self._logits, logits]) if len(self._logits) else logits
        self._keys = torch.cat([self._keys, keys])

    def _drop_finished(self) -> tuple[list[int], list[_Row]]:
        """Removes rows that have ended, the last one filling each gap: (old places of those kept, those that ended)."""
        places, ended = list(range(len(self.live))), []
        for place in reversed(range(len(self.live))):
            row = self.live[place]
            reason = self._stop_rule.reason(row.token_ids)
            if reason is None:
                continue
            row.finish_reason = reason
            ended.append(row)
            last = self.live[-1]
            if last is not row:
                self._steps.move_row(len(self.live) - 1, place, last.held)
                self.live[place], places[place] = last, places[len(self.live) - 1]
            self.live.pop()
            places.pop()
        if ended:
            self._drop_prompts()
        return places, ended

    def _drop_prompts(self) -> None:
        """Removes prompts without live rows, the last one filling each gap."""
        used = {row.slot for row in self.live}
        for slot in reversed(range(len(self._slots))):
            if slot in used:
                continue
            last = len(self._slots) - 1
            if slot != last:
                self._steps.move_prompt(last, slot, len(self._prompts[self._slots[last]].token_ids))
                self._slots[slot] = self._slots[last]
                for row in self.live:
                    if row.slot == last:
                        row.slot = slot
            self._slots.pop()
