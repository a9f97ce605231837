"""Groups to one flat row of tokens: each prompt once, its completions behind it, nothing in between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pggrpo_cli.packed_attention import PackedGroup


@dataclass(frozen=True, kw_only=True, slots=True)
class Packed:
    """N input tokens and T completion tokens to be predicted. All tensors int64."""

    input_ids: torch.Tensor
    """[N]: prompt, then each completion without its last token; group after group."""
    position_ids: torch.Tensor
    """[N]: every completion goes on where its prompt ended."""
    predictor_index: torch.Tensor
    """[T]: which input's output predicts each target. The first tokens of all completions share the prompt's last."""
    targets: torch.Tensor
    """[T]: the completion tokens."""
    sequence_index: torch.Tensor
    """[T]: which completion a target belongs to, counted through all groups."""
    groups: tuple[PackedGroup, ...]
    prompt_ids: tuple[tuple[int, ...], ...]
    completion_ids: tuple[torch.Tensor, ...]
    """As given, for models that cannot run packed."""

    def to(self, device: torch.device) -> Packed:
        moved = {
            name: getattr(self, name).to(device)
            for name in ("input_ids", "position_ids", "predictor_index", "targets", "sequence_index")
        }
        return Packed(**moved, groups=self.groups, prompt_ids=self.prompt_ids, completion_ids=self.completion_ids)


def pack(prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[torch.Tensor]]) -> Packed:
    """Packs groups: prompts[g] (≥ 1 token) with its completions[g] (each ≥ 1 token)."""
    inputs: list[torch.Tensor] = []
    positions: list[torch.Tensor] = []
    predictors: list[torch.Tensor] = []
    groups: list[PackedGroup] = []
    flat = [completion for group in completions for completion in group]
    offset = 0
    for prompt, members in zip(prompts, completions, strict=True):
        start, length = offset, len(prompt)
        inputs.append(torch.tensor(prompt, dtype=torch.long))
        positions.append(torch.arange(length))
        offset += length
        for completion in members:
            fed = completion.shape[0] - 1
            inputs.append(completion[:-1])
            positions.append(torch.arange(length, length + fed))
            predictors.append(torch.tensor([start + length - 1]))
            predictors.append(torch.arange(offset, offset + fed))
            offset += fed
        groups.append(PackedGroup(start, length, tuple(member.shape[0] - 1 for member in members)))
    empty = torch.empty(0, dtype=torch.long)
    lengths = torch.tensor([completion.shape[0] for completion in flat], dtype=torch.long)
    return Packed(
        input_ids=torch.cat(inputs),
        position_ids=torch.cat(positions),
        predictor_index=torch.cat(predictors) if flat else empty,
        targets=torch.cat(flat) if flat else empty,
        sequence_index=torch.repeat_interleave(torch.arange(len(flat)), lengths),
        groups=tuple(groups),
        prompt_ids=tuple(tuple(prompt) for prompt in prompts),
        completion_ids=tuple(flat),
    )
