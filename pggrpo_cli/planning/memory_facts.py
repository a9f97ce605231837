"""What the estimate of a run's memory follows from, gathered from its configuration and a policy, real or of shapes alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from pggrpo_cli.class_source import is_ours
from pggrpo_cli.compiled.family import Unlike, decoder_of
from pggrpo_cli.compiled.library import Uncompiled, library
from pggrpo_cli.config import TrainConfig
from pggrpo_cli.instantiate import component
from pggrpo_cli.loading import HELD_OUT_ROWS
from pggrpo_cli.planning.activations import kept_for_backward
from pggrpo_cli.planning.memory_estimate import MemoryEstimate, MemoryFacts, memory_estimate
from pggrpo_cli.planning.model_shape import ModelShape
from pggrpo_cli.planning.optimizer_memory import optimizer_memory
from pggrpo_cli.planning.run_counts import Lengths, RunCounts
from pggrpo_cli.policy import Policy, resolve_compute_dtype
from pggrpo_cli.protocols import Loss
from pggrpo_cli.scoring.pool import default_workers
from pggrpo_cli.scoring.scorer import reward_settings

WORKER = 40_000_000
"""Of a process of an isolated reward that loads no model: measured, 31 MB and 10 for what watches over it. A user's own code
that imports a large library takes more."""
ALL_ROWS = 1 << 30
"""Of a sampler that decodes a whole step at once."""


def estimate_memory(
    config: TrainConfig, policy: Policy, loss: Loss, counts: RunCounts, lengths: Lengths, base: int
) -> MemoryEstimate:
    """`base`: memory.resident_bytes() before anything of the model was loaded."""
    return memory_estimate(_facts(config, policy, loss, lengths, base), counts)


def _facts(config: TrainConfig, policy: Policy, loss: Loss, lengths: Lengths, base: int) -> MemoryFacts:
    shape = ModelShape.of(policy.module)
    weights = next(policy.module.parameters()).dtype
    kept = kept_for_backward(policy)
    optimizer = optimizer_memory(config.optimizer, policy.module.named_parameters())
    reference, loading = _reference(config, policy, loss, shape)
    cpu = policy.device.type == "cpu"
    return MemoryFacts(
        base=base if cpu else 0,
        shape=shape,
        weight_width=weights.itemsize,
        compute_width=policy.compute_dtype.itemsize,
        rollout_copies=_rollout_copies(config.sampler, policy),
        keeps_freed=cpu,
        kept_per_token=kept.per_token,
        kept_fixed=kept.fixed,
        activations_guessed=kept.guessed,
        checkpoints_activations=bool(config.model["gradient_checkpointing"]),
        reference=reference,
        reference_loading=loading,
        optimizer=optimizer.kept,
        optimizer_working=optimizer.working,
        rewards=sum(models_of_rewards(config, policy.device, isolated=False).values()),
        longest_prompt=lengths.longest_prompt,
        max_rows=_rows_at_once(config.sampler),
        loads_twice=str(config.model.get("path") or "").endswith(".gguf"),
    )


def _rollout_copies(sampler: Mapping[str, Any], policy: Policy) -> int:
    """Of linear layers and head: compiled decoding packs one; torch casts one where weights are of another dtype, and packs
    it where that pays."""
    narrow = policy.compute_dtype == torch.bfloat16
    if policy.device.type == "cpu" and sampler.get("online", sampler).get("decoding") != "torch":
        try:
            library(bfloat16=narrow)
            decoder_of(policy.module)
            return 1
        except (Uncompiled, Unlike):
            pass
    return int(policy.compute_dtype != next(policy.module.parameters()).dtype) + int(
        policy.device.type == "cpu" and narrow
    )


def _rows_at_once(sampler: Mapping[str, Any]) -> int:
    """Completions that are decoded together, at most."""
    if "max_new_tokens" not in sampler:
        return HELD_OUT_ROWS
    return int(sampler.get("online", sampler).get("max_rows") or ALL_ROWS)


def _reference(config: TrainConfig, policy: Policy, loss: Loss, shape: ModelShape) -> tuple[int, int]:
    """(bytes of π_orig, bytes beside them while it is made); reference.frozen says which weights are narrowed."""
    if not loss.needs_reference:
        return 0, 0
    options = config.reference
    device = policy.device if options.device is None else torch.device(options.device)
    if device.type != policy.device.type:
        return 0, 0
    dtype = policy.compute_dtype if options.dtype == "auto" else resolve_compute_dtype(options.dtype, device)
    width = next(policy.module.parameters()).element_size() if options.path is None else torch.float32.itemsize
    width = max(width, dtype.itemsize)
    kept = shape.linear * dtype.itemsize + (shape.parameters - shape.linear) * width
    return kept, shape.parameters * width - kept


def reward_processes(config: TrainConfig) -> dict[str, int]:
    """Bytes of the processes that isolated rewards may take, beside the run's own; empty if there are none."""
    if not any(reward_settings(config, name).isolated for name in config.reward):
        return {}
    count = config.scoring.workers or default_workers()
    models = sum(models_of_rewards(config, torch.device("cpu"), isolated=True).values())
    return {f"{count} reward processes": count * (WORKER + models)}


def models_of_rewards(config: TrainConfig, device: torch.device, *, isolated: bool) -> dict[str, int]:
    """Bytes of the models that rewards hold, by reward: those in processes of their own, or the others. Raises ConfigError
    if one of them is not there."""
    found: dict[str, int] = {}
    for name, node in config.reward.items():
        if reward_settings(config, name).isolated != isolated or not is_ours(str(node["_target_"])):
            continue
        reward: Any = component(node, f"reward.{name}")
        if hasattr(reward, "model_bytes"):
            found[name] = int(reward.model_bytes(device))
    return found
