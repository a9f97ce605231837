"""From nodes of a configuration to what a run and an evaluation work with: the policy, its prompts, a sampler for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import torch

from pggrpo_cli.chat_template import use_chat_template
from pggrpo_cli.config import MAPPING_KEYS, TrainConfig
from pggrpo_cli.instantiate import component
from pggrpo_cli.lazy_prompts import render_lazily
from pggrpo_cli.lazy_rows import LazyRows
from pggrpo_cli.policy import LoadedModel, ModelSettings, Policy, resolve_compute_dtype
from pggrpo_cli.prompts import RenderedPrompts, Renderer, format_of, prompt_room, render_rows
from pggrpo_cli.sampler.native import Native
from pggrpo_cli.types import Row

HELD_OUT_ROWS = 256
"""Answers decoded together where the run's own sampler, which reads what the data bring, has no such key."""


def load_policy(config: TrainConfig, device: torch.device) -> tuple[Policy, str]:
    """(the model of `config.model` on `device`, where it came from)."""
    loaded: LoadedModel = component(config.model, "model").load()
    use_chat_template(loaded.tokenizer, config.model["chat_template"], "model.chat_template")
    settings = ModelSettings(**{name: config.model[name] for name in MAPPING_KEYS["model"]})
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[settings.weight_dtype]
    policy = Policy(
        loaded.module.to(device, dtype),
        loaded.tokenizer,
        resolve_compute_dtype(settings.compute_dtype, device),
        gradient_checkpointing=settings.gradient_checkpointing,
    )
    return policy, loaded.source


def render(config: TrainConfig, policy: Policy, rows: Sequence[Row], new_tokens: int, key: str) -> RenderedPrompts:
    """`rows` as prompts of the policy, lazily if they are; `new_tokens`, from the key `key`, are kept free behind them."""
    room = prompt_room(policy.context_length, new_tokens, key)
    prompt_format = format_of(config.data)
    if not isinstance(rows, LazyRows):
        return render_rows(rows, policy.tokenizer, prompt_format, room, policy.end_token_ids)
    renderer = Renderer(
        tokenizer=policy.tokenizer, prompt_format=prompt_format, context_limit=room, end_token_ids=policy.end_token_ids
    )
    return render_lazily(rows, renderer)


def held_out_sampler(sampler: Any, group_size: int, temperature: float, max_new_tokens: int | None) -> Any:
    """The run's sampler as it samples held-out prompts: our own engine where the run's only reads what the data bring.
    max_new_tokens None: the sampler's own."""
    changes: dict[str, Any] = {"group_size": group_size, "temperature": temperature}
    if max_new_tokens is not None:
        changes["max_new_tokens"] = max_new_tokens
    if "max_new_tokens" in {field.name for field in fields(sampler)}:
        return replace(sampler, **changes)
    return Native(top_p=1.0, top_k=0, min_p=0.0, stop=[], max_rows=HELD_OUT_ROWS, decoding="auto", **changes)
