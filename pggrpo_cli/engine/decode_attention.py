"""Attention of one new token for each live row: to its group's prompt, whose keys are stored once, and to its own.

The rows of a group attend to their prompt together, as one rectangle of queries, so the prompt's keys are read once a
group; both parts are then joined by the mass of their softmaxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import torch

from pggrpo_cli.attention import Heads
from pggrpo_cli.engine.key_values import KeyValueStore


@dataclass(frozen=True, slots=True)
class Seating:
    """Which of the B live rows belong to which of the G live prompts; made anew when one comes or goes."""

    rows: torch.Tensor
    """int64 [G · M]: the rows of each prompt, M the most that one has; fillers repeat a row."""
    places: torch.Tensor
    """int64 [B]: where in [G · M] each row sits."""
    prompt_lengths: torch.Tensor
    """int64 [G]"""
    num_prompts: int
    longest_prompt: int
    in_order: bool
    """Whether `rows` is 0, 1, 2, … without fillers."""
    equal_prompts: bool
    """Whether all prompts are as long."""

    @classmethod
    def of(cls, slots: Sequence[int], prompt_lengths: Sequence[int], device: torch.device) -> Seating:
        """slots[b] is the prompt of row b, prompt_lengths[g] the length of prompt g."""
        members: list[list[int]] = [[] for _ in prompt_lengths]
        for row, slot in enumerate(slots):
            members[slot].append(row)
        most = max(map(len, members))
        rows = [row for group in members for row in (*group, *[group[0]] * (most - len(group)))]
        places = {row: group * most + seat for group, seated in enumerate(members) for seat, row in enumerate(seated)}
        return cls(
            rows=torch.tensor(rows, device=device),
            places=torch.tensor([places[row] for row in range(len(slots))], device=device),
            prompt_lengths=torch.tensor(prompt_lengths, device=device),
            num_prompts=len(prompt_lengths),
            longest_prompt=max(prompt_lengths),
            in_order=rows == list(range(len(slots))),
            equal_prompts=len(set(prompt_lengths)) == 1,
        )

    def grouped(self, part: torch.Tensor) -> torch.Tensor:
        """[B, K, g, X] → [G, K, M · g, X]"""
        part = part if self.in_order else part.index_select(0, self.rows)
        _, heads, stacked, size = part.shape
        part = part.reshape(self.num_prompts, -1, heads, stacked, size).transpose(1, 2)
        return part.reshape(self.num_prompts, heads, -1, size)

    def by_row(self, part: torch.Tensor, stacked: int) -> torch.Tensor:
        """[G, K, M · g, X] → [B, K, g, X], g = stacked"""
        groups, heads, _, size = part.shape
        part = part.reshape(groups, heads, -1, stacked, size).transpose(1, 2).reshape(-1, heads, stacked, size)
        return part if self.in_order else part.index_select(0, self.places)


@dataclass(slots=True)
class DecodePlan:
    """One new token for each of the first B rows of the store."""

    store: KeyValueStore
    seating: Seating
    lengths: torch.Tensor
    """int64 [B]: own keys the row holds before this token."""
    equal_length: int | None
    """That number, if it is the same for all rows."""
    longest: int
    """max(lengths) + 1, known on the host."""
    _masks: dict[int | None, tuple[torch.Tensor | None, torch.Tensor | None]] = field(default_factory=dict)

    def attend(self, heads: Heads) -> torch.Tensor:
        lengths = self.lengths if self.equal_length is None else self.equal_length
        keys, values = self.store.append(heads.layer, lengths, heads.key, heads.value, self.longest)
        shared = self.store.prompts(heads.layer, self.seating.num_prompts, self.seating.longest_prompt)
        batch, num_key_heads, _, size = keys.shape
        query = heads.query.to(keys.dtype).transpose(0, 1).reshape(batch, num_key_heads, -1, size)
        scaling = heads.scaling if heads.scaling is not None else size**-0.5
        plain = heads.softcap is None and heads.sliding_window is None and values.shape[-1] == size
        if plain and _has_fused(query.device.type):
            out = self._fused(query, shared, (keys, values), scaling)
        else:
            out = self._explicit(query, shared, (keys, values), scaling, heads)
        return out.to(values.dtype).reshape(batch, -1, values.shape[-1]).transpose(0, 1)

    def _fused(
        self,
        query: torch.Tensor,
        shared: tuple[torch.Tensor, torch.Tensor],
        own: tuple[torch.Tensor, torch.Tensor],
        scaling: float,
    ) -> torch.Tensor:
        """o = w o_shared + (1 − w) o_own with w = Z_shared / (Z_shared + Z_own), Z the softmaxes' masses."""
        seating, stacked = self.seating, query.shape[2]
        hidden_shared, hidden_own = self._bias(query.dtype)
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        of_shared, mass_shared = kernel(
            seating.grouped(query), *shared, 0.0, False, attn_mask=hidden_shared, scale=scaling
        )
        of_own, mass_own = kernel(query, *own, 0.0, False, attn_mask=hidden_own, scale=scaling)
        weight = torch.sigmoid(seating.by_row(mass_shared.unsqueeze(-1), stacked) - mass_own.unsqueeze(-1))
        wide = weight.dtype
        return torch.lerp(of_own.to(wide), seating.by_row(of_shared, stacked).to(wide), weight)

    def _explicit(
        self,
        query: torch.Tensor,
        shared: tuple[torch.Tensor, torch.Tensor],
        own: tuple[torch.Tensor, torch.Tensor],
        scaling: float,
        heads: Heads,
    ) -> torch.Tensor:
        """The same in plain products: any device, windows and soft caps."""
        seating, stacked = self.seating, query.shape[2]
        wide = torch.promote_types(query.dtype, torch.float32)
        of_shared = (seating.grouped(query) @ shared[0].transpose(-1, -2)).to(wide)
        of_own = (query @ own[0].transpose(-1, -2)).to(wide)
        scores = torch.cat([seating.by_row(of_shared, stacked), of_own], dim=-1) * scaling
        if heads.softcap is not None:
            scores = torch.tanh(scores / heads.softcap) * heads.softcap
        weights = scores.masked_fill(self._hidden(heads.sliding_window), float("-inf")).softmax(-1).to(query.dtype)
        on_shared, on_own = weights.split([shared[0].shape[2], own[0].shape[2]], dim=-1)
        return seating.by_row(seating.grouped(on_shared) @ shared[1], stacked) + on_own @ own[1]

    def _bias(self, dtype: torch.dtype) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """−inf where a key is hidden, [G, 1, 1, P] and [B, 1, 1, L]; None where none is."""
        if None not in self._masks:
            seating, device = self.seating, self.lengths.device
            of_shared = of_own = None
            if not seating.equal_prompts:
                hidden = torch.arange(seating.longest_prompt, device=device) >= seating.prompt_lengths[:, None]
                of_shared = _minus_infinity(hidden[:, None, None], dtype)
            if self.equal_length is None:
                hidden = torch.arange(self.longest, device=device) > self.lengths[:, None]
                of_own = _minus_infinity(hidden[:, None, None], dtype)
            self._masks[None] = (of_shared, of_own)
        return self._masks[None]

    def _hidden(self, window: int | None) -> torch.Tensor:
        """bool [B, 1, 1, P + L]: True = hidden."""
        name = -1 if window is None else window
        if name not in self._masks:
            seating, device = self.seating, self.lengths.device
            prompt_lengths = seating.prompt_lengths.repeat_interleave(seating.rows.shape[0] // seating.num_prompts)
            before = prompt_lengths[seating.places][:, None]
            last = self.lengths[:, None]
            in_prompt = torch.arange(seating.longest_prompt, device=device)[None]
            in_own = torch.arange(self.longest, device=device)[None]
            hidden_shared, hidden_own = in_prompt >= before, in_own > last
            if window is not None:
                hidden_shared = hidden_shared | (before + last - in_prompt >= window)
                hidden_own = hidden_own | (last - in_own >= window)
            self._masks[name] = (torch.cat([hidden_shared, hidden_own], 1)[:, None, None], None)
        found = self._masks[name][0]
        assert found is not None
        return found


def _minus_infinity(hidden: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, float("-inf"))


@lru_cache(maxsize=4)
def _has_fused(device: str) -> bool:
    """Whether torch's fused kernel, which also gives the softmax's mass, can be called here: asked, not assumed."""
    if device != "cpu":
        return False
    one = torch.zeros(1, 1, 1, 8)
    try:
        out, mass = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            one, one, one, 0.0, False, attn_mask=torch.zeros(1, 1, 1, 1), scale=1.0
        )
    except (AttributeError, RuntimeError, TypeError):
        return False
    return out.shape == one.shape and mass.shape == (1, 1, 1)
