"""What a run began with, as short hashes: a checkpoint that goes on with other prompts or another model would not be the same
run, and the configuration cannot tell when a file's content has changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from pggrpo_cli.errors import ConfigError
from pggrpo_cli.lazy_prompts import LazyPrompts
from pggrpo_cli.types import Prompt

SAMPLED = 1 << 16
"""Numbers of every weight, spread over it: enough to tell two models apart, and no seconds spent on it."""


@dataclass(frozen=True, slots=True)
class _Part:
    words: str
    moved_by: tuple[str, ...]
    """Keys that change it, each with all below it: whoever allows one of them has asked for another."""
    not_by: tuple[str, ...] = ()
    """… but not these."""


_WEIGHTS_STAY = ("model.compute_dtype", "model.gradient_checkpointing", "model.chat_template")
_PARTS = {
    "data": _Part(
        "the prompts are not those that this run began with: the file's content, the tokenizer or the chat template has "
        "changed since",
        ("data", "model", "sampler.max_new_tokens", "seed"),
        ("model.compute_dtype", "model.gradient_checkpointing", "model.weight_dtype"),
    ),
    "held-out data": _Part(
        "the held-out prompts are not those that this run began with",
        ("data", "evaluation", "model", "sampler.max_new_tokens", "seed"),
        ("evaluation.every", "model.compute_dtype", "model.gradient_checkpointing", "model.weight_dtype"),
    ),
    "model": _Part(
        "the weights are not those that this run began with: the model's files have changed since, and the reference with "
        "them",
        ("model",),
        _WEIGHTS_STAY,
    ),
    "reference": _Part(
        "the reference's weights are not those that this run began with: its files have changed since",
        ("reference",),
        ("reference.device",),
    ),
}
_OTHER_SCORES = "the model's files have changed since this run began, and its scores with them"
"""Of a reward's key that names a model on disk (model_files.py)."""


def prompts_digest(prompts: Sequence[Prompt]) -> str:
    """Of tokens, the data set's own completions and the columns that rewards read. Of prompts that are rendered when their
    turn comes: of all that the data set's file holds, and of the tokens of a sample, which show the tokenizer's part."""
    digest = hashlib.blake2b(digest_size=8)
    if isinstance(prompts, LazyPrompts):
        digest.update(prompts.rows.digest().encode())
        prompts = [prompt for prompt in prompts.sample() if prompt is not None]
    for prompt in prompts:
        columns = json.dumps(prompt.row.columns, sort_keys=True, default=lambda value: type(value).__name__)
        digest.update(f"{prompt.token_ids}{prompt.completion_ids}{columns}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def model_digest(parameters: Iterable[tuple[str, torch.Tensor]]) -> str:
    """Of the weights before training."""
    digest = hashlib.blake2b(digest_size=8)
    for name, parameter in parameters:
        flat = parameter.detach().flatten()
        spread = flat[:: -(-flat.numel() // SAMPLED) or 1].cpu().contiguous()
        digest.update(f"{name}{tuple(parameter.shape)}{parameter.dtype}".encode())
        digest.update(spread.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def refuse_other_origin(before: Mapping[str, str], now: Mapping[str, str], allow_changed: Sequence[str]) -> None:
    """Raises ConfigError if a run would go on with other prompts, from another model or with other reward models than it
    began with."""
    parts = _PARTS | {name: _Part(_OTHER_SCORES, (name,)) for name in now if name.startswith("reward.")}
    for name, part in parts.items():
        if name not in before or name not in now or before[name] == now[name]:
            continue
        if not any(_touches(key, part.moved_by) and not _below(key, part.not_by) for key in allow_changed):
            key = name.removeprefix("held-out ")
            raise ConfigError(f"`{key}`: {part.words}. If you mean it, add resume.allow_changed=[{key}].")


def _touches(key: str, prefixes: Sequence[str]) -> bool:
    """Whether allowing `key` allows one of `prefixes`, something below it, or a whole that holds it."""
    return _below(key, prefixes) or any(_below(prefix, (key,)) for prefix in prefixes)


def _below(key: str, prefixes: Sequence[str]) -> bool:
    return any(key == prefix or key.startswith(f"{prefix}.") for prefix in prefixes)
