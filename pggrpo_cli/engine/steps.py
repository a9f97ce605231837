"""The forwards of a rollout: prompts in, then one new token for each live row.

Prompts lie in slots, completions in the making in rows; the live ones are always the first. Two ways to compute them:
TorchSteps runs the policy's own module, CompiledSteps (compiled/steps.py) our own code for models of the Llama family.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch

from pggrpo_cli.engine.decode_attention import DecodePlan, Seating
from pggrpo_cli.engine.key_values import KeyValueStore
from pggrpo_cli.engine.selection import Selection
from pggrpo_cli.packed_attention import PackedPlan
from pggrpo_cli.packing import pack
from pggrpo_cli.policy import Policy


@dataclass(frozen=True, kw_only=True, slots=True)
class Capacity:
    """The most that there will be at a time."""

    slots: int
    prompt_tokens: int
    """Of one prompt."""
    rows: int
    row_tokens: int
    """Of one completion."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveRows:
    """What the B live rows hold before their newest token is fed."""

    slots: Sequence[int]
    """[B]: where the row's prompt is."""
    held: Sequence[int]
    """[B]: own keys of the row."""
    prompt_lengths: Sequence[int]
    """Of the live slots."""


class Steps(Protocol):
    def prefill(self, prompts: Sequence[Sequence[int]], first_slot: int) -> torch.Tensor:
        """Computes prompts and keeps their keys in the slots from `first_slot` on → logits of their next tokens, float32
        [prompts, V]."""
        ...

    def next_logits(self, tokens: Sequence[int], live: LiveRows) -> torch.Tensor:
        """Feeds the newest token of every row → logits of the next, float32 [B, V]; the caller may overwrite them."""
        ...

    def choose(
        self, selection: Selection, logits: torch.Tensor, keys: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """selection.choose()"""
        ...

    def move_prompt(self, source: int, target: int, length: int) -> None:
        """Slot `target` becomes a copy of slot `source`, whose first `length` positions count."""
        ...

    def move_row(self, source: int, target: int, length: int) -> None:
        """Row `target` becomes a copy of row `source`, whose first `length` positions count."""
        ...


OpenSteps = Callable[[Policy, Capacity], AbstractContextManager[Steps]]
"""For one rollout: the weights do not change while it is open."""


@contextmanager
def torch_steps(policy: Policy, capacity: Capacity) -> Iterator[Steps]:
    with policy.sampling():
        yield TorchSteps(policy, capacity)


class TorchSteps:
    """Inside policy.sampling(): the policy's module through our attention function; any model that runs packed."""

    def __init__(self, policy: Policy, capacity: Capacity) -> None:
        self._policy = policy
        self._store = KeyValueStore(
            capacity.slots, capacity.prompt_tokens, capacity.rows, capacity.row_tokens, policy.compute_dtype
        )
        self._seating: Seating | None = None
        self._seated: tuple[Sequence[int], Sequence[int]] = ((), ())

    def prefill(self, prompts: Sequence[Sequence[int]], first_slot: int) -> torch.Tensor:
        policy = self._policy
        packed = pack(prompts, [[] for _ in prompts]).to(policy.device)
        plan = PackedPlan(packed.groups, policy.compute_dtype, collect=True)
        hidden = policy.hidden(packed.input_ids, packed.position_ids, plan)
        spans = [slice(group.start, group.start + group.num_tokens) for group in packed.groups]
        for slot, span in enumerate(spans, first_slot):
            for layer, (keys, values) in enumerate(zip(plan.keys, plan.values, strict=True)):
                self._store.write_prompt(layer, slot, keys[:, span], values[:, span])
        last = torch.tensor([span.stop - 1 for span in spans], device=policy.device)
        return policy.logits(hidden[last])

    def next_logits(self, tokens: Sequence[int], live: LiveRows) -> torch.Tensor:
        device = self._policy.device
        plan = DecodePlan(
            store=self._store,
            seating=self._seating_of(live),
            lengths=torch.tensor(live.held, device=device),
            equal_length=live.held[0] if len(set(live.held)) == 1 else None,
            longest=max(live.held) + 1,
        )
        positions = [live.prompt_lengths[slot] + own for slot, own in zip(live.slots, live.held, strict=True)]
        hidden = self._policy.hidden(torch.tensor(tokens, device=device), torch.tensor(positions, device=device), plan)
        return self._policy.logits(hidden)

    def choose(
        self, selection: Selection, logits: torch.Tensor, keys: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return selection.choose(logits, keys)

    def move_prompt(self, source: int, target: int, length: int) -> None:
        self._store.move_prompt(source, target, length)

    def move_row(self, source: int, target: int, length: int) -> None:
        self._store.move_row(source, target, length)

    def _seating_of(self, live: LiveRows) -> Seating:
        wanted = (live.slots, live.prompt_lengths)
        if self._seating is None or self._seated != wanted:
            self._seating, self._seated = Seating.of(live.slots, live.prompt_lengths, self._policy.device), wanted
        return self._seating
