"""What a run began with, as two short hashes: a checkpoint that goes on with other prompts or another model would not be the
same run, and the configuration cannot tell when a file's content has changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence

import torch

from pggrpo_cli.errors import ConfigError
from pggrpo_cli.progress import Progress
from pggrpo_cli.types import Prompt

SAMPLED = 1024
"""Numbers from each end of every weight: enough to tell two models apart, and no seconds spent on it."""
OF_PROMPTS = ("data", "model", "sampler", "seed")
OF_MODEL = ("model", "reference")


def prompts_digest(prompts: Sequence[Prompt]) -> str:
    """Of tokens, the data set's own completions and the columns that rewards read."""
    digest = hashlib.blake2b(digest_size=8)
    for prompt in prompts:
        columns = json.dumps(prompt.row.columns, sort_keys=True, default=lambda value: type(value).__name__)
        digest.update(f"{prompt.token_ids}{prompt.completion_ids}{columns}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def model_digest(parameters: Iterable[tuple[str, torch.Tensor]]) -> str:
    """Of the weights before training."""
    digest = hashlib.blake2b(digest_size=8)
    for name, parameter in parameters:
        flat = parameter.detach().flatten()
        ends = torch.cat([flat[:SAMPLED], flat[-SAMPLED:]]).cpu().contiguous()
        digest.update(f"{name}{tuple(parameter.shape)}".encode())
        digest.update(ends.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def refuse_other_origin(progress: Progress, prompts: str, model: str, allow_changed: Sequence[str]) -> None:
    """Raises ConfigError if a run would go on with other prompts or from another model than it began with."""
    allowed = {key.partition(".")[0] for key in allow_changed}
    for key, was, now, may_change, what in (
        ("data", progress.prompts, prompts, OF_PROMPTS, "the prompts are not those that this run began with: the file's "
         "content, the tokenizer or the chat template has changed since"),
        ("model", progress.model, model, OF_MODEL, "the weights are not those that this run began with: the model's files "
         "have changed since, and the reference with them"),
    ):  # fmt: skip
        if was and was != now and not allowed & set(may_change):
            raise ConfigError(f"`{key}`: {what}. If you mean it, add resume.allow_changed=[{key}].")
