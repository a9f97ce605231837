"""What an update that was not finite was made of, written for whoever looks for the reason."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from pggrpo_cli.batching import Minibatch
from pggrpo_cli.warn import warn

FOLDER = "debug"
MOST_FILES = 20
"""Of one run: the first ones say as much as a thousand."""


def write_bad_batch(run_dir: Path, step: int, minibatch: Minibatch, loss: float, grad_norm: float) -> Path | None:
    """debug/step-000012-1.safetensors and .json; None if there are enough of them already, or the disk refuses.

    Tensors: completion_ids and lengths (flat, completion after completion), advantages, sampler_logprobs where they were
    sampled, prompt_ids and prompt_lengths (one a group). JSON: loss and gradient norm, the rows of the data set, totals.
    """
    folder = run_dir / FOLDER
    number = 1
    while (folder / f"step-{step:06d}-{number}.json").exists():
        number += 1
    if len(list(folder.glob("*.json"))) >= MOST_FILES:
        return None
    micros = minibatch.micro_batches
    groups = [group for micro in micros for group in micro.groups]
    tensors = {
        "completion_ids": torch.cat([micro.packed.targets for micro in micros]),
        "lengths": torch.cat([micro.lengths for micro in micros]),
        "advantages": torch.cat([micro.advantages for micro in micros]),
        "prompt_ids": torch.tensor([token for group in groups for token in group.prompt_ids]),
        "prompt_lengths": torch.tensor([len(group.prompt_ids) for group in groups]),
    }
    if all(micro.sampler_logprobs is not None for micro in micros):
        tensors["sampler_logprobs"] = torch.cat([micro.sampler_logprobs for micro in micros])  # type: ignore[misc]
    facts = {
        "step": step,
        "loss": loss if math.isfinite(loss) else str(loss),
        "grad_norm": grad_norm if math.isfinite(grad_norm) else str(grad_norm),
        "prompt_index": [group.prompt_index for group in groups],
        "sample": [row.sample for group in groups for row in group.rows],
        "num_sequences": minibatch.num_sequences,
        "num_tokens": minibatch.num_tokens,
        "num_pairs": minibatch.num_pairs,
    }
    file = folder / f"step-{step:06d}-{number}.safetensors"
    try:
        folder.mkdir(exist_ok=True)
        save_file(tensors, file)
        file.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    except (OSError, SafetensorError) as error:
        warn(f"{file} could not be written: {error}")
        return None
    return file
