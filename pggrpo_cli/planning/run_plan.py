"""The run that a command line describes, foreseen without running it: how much of what, memory by part, disk, notes.

The model's weights are not read: shapes say what they and everything that follows from them will take.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from pggrpo_cli.chat_template import use_chat_template
from pggrpo_cli.check import check_foreign_targets
from pggrpo_cli.config import TrainConfig
from pggrpo_cli.devices import resolve_device
from pggrpo_cli.filters import Sieve
from pggrpo_cli.instantiate import component
from pggrpo_cli.lazy_prompts import render_lazily
from pggrpo_cli.lazy_rows import LazyRows
from pggrpo_cli.machine_findings import available_memory, total_memory
from pggrpo_cli.memory import resident_bytes
from pggrpo_cli.model_outline import ModelOutline, outline_of
from pggrpo_cli.planning.activations import outline_policy
from pggrpo_cli.planning.disk_estimate import DiskEstimate, disk_estimate, small_files
from pggrpo_cli.planning.memory_estimate import MemoryEstimate
from pggrpo_cli.planning.memory_facts import estimate_memory, reward_processes
from pggrpo_cli.planning.model_shape import ModelShape
from pggrpo_cli.planning.optimizer_memory import optimizer_memory
from pggrpo_cli.planning.plan import GUESSED, about_data, describe_parts, remarks, unused_labels
from pggrpo_cli.planning.run_counts import Lengths, RunCounts, lengths_of, run_counts
from pggrpo_cli.policy import Policy, resolve_compute_dtype
from pggrpo_cli.prompts import RenderedPrompts, Renderer, format_of, prompt_room, render_rows
from pggrpo_cli.protocols import Loss
from pggrpo_cli.row_loading import load_rows
from pggrpo_cli.together import check_together
from pggrpo_cli.types import Dataset

TOKENISED = 4096
"""More rows than that are represented by so many, spread evenly over them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunPlan:
    """Bytes, unless said otherwise."""

    model: str
    computes: str
    shape: ModelShape
    counts: RunCounts
    lengths: Lengths
    memory: MemoryEstimate
    beside: dict[str, int]
    """Of other processes that the run starts."""
    on_cpu: bool
    memory_free: int
    memory_total: int
    disk: DiskEstimate
    place: Path
    disk_free: int
    base: int
    """What a process holds with the rows, without the model."""
    notes: list[str]


def plan_run(config: TrainConfig, place: Path, base: int | None = None) -> RunPlan:
    """Raises PggrpoError as the run would before its model loads. `config` is checked; `place`: its run directory; `base`: what
    a process holds with the rows, in bytes, if this one holds more than a run would."""
    resolve_device(config.device)
    check_foreign_targets(config)
    rows, sieve = load_rows(config)
    check_together(config, component(config.loss, "loss"), component(config.sampler, "sampler"), rows)
    base = resident_bytes() if base is None else base
    return foreseen(config, place, rows, sieve, outline_of(component(config.model, "model")), base)


def foreseen(
    config: TrainConfig, place: Path, rows: Dataset, sieve: Sieve, outline: ModelOutline, base: int
) -> RunPlan:
    """`base`: memory.resident_bytes() with the rows, without the model; `rows`: of which check_together has nothing to say."""
    device = resolve_device(config.device)
    loss = component(config.loss, "loss")
    use_chat_template(outline.tokenizer, config.model["chat_template"], "model.chat_template")
    rendered = _rendered(config, rows, outline)
    weight_dtype = torch.bfloat16 if config.model["weight_dtype"] == "bfloat16" else torch.float32
    compute_dtype = resolve_compute_dtype(config.model["compute_dtype"], device)
    policy = outline_policy(outline.config, outline.tokenizer, weight_dtype, compute_dtype)
    lengths = lengths_of(rendered, len(rows.evaluation))
    if not isinstance(rows.train, LazyRows) and len(rows.train) > TOKENISED:
        lengths = lengths.of_more(round(len(rows.train) * len(rendered.prompts) / TOKENISED))
    counts = run_counts(config, lengths, pairs=loss.needs_pairs)
    memory = estimate_memory(config, policy, loss, counts, lengths, base)
    guessed = [f"note: {GUESSED}: it computes with numbers, which a plan has not"] if memory.activations_guessed else []
    existing = next(one for one in (place.absolute(), *place.absolute().parents) if one.is_dir())
    free, total = _memory_of(device)
    return RunPlan(
        model=str(config.model.get("path") or str(config.model["_target_"]).rpartition(".")[2]),
        computes=f"{_name(compute_dtype)} over {_name(weight_dtype)} weights on {device}",
        shape=ModelShape.of(policy.module),
        counts=counts,
        lengths=lengths,
        memory=memory,
        beside=reward_processes(config),
        on_cpu=device.type == "cpu",
        memory_free=free,
        memory_total=total,
        disk=_disk(config, policy, outline, counts, lengths, rendered),
        place=place,
        disk_free=shutil.disk_usage(existing).free,
        base=base,
        notes=[*_notes(config, loss, rows, sieve, rendered), *guessed],
    )


def _memory_of(device: torch.device) -> tuple[int, int]:
    """(free, all there is) on the device, in bytes. What this process holds already is free for the run."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return int(free), int(total)
    return available_memory() + resident_bytes(), total_memory()


def _rendered(config: TrainConfig, rows: Dataset, outline: ModelOutline) -> RenderedPrompts:
    """Those of all rows, or of TOKENISED spread evenly over them."""
    new_tokens = config.sampler.get("max_new_tokens") or 0
    room = prompt_room(outline.context_length, new_tokens, "sampler.max_new_tokens")
    train, prompt_format = rows.train, format_of(config.data)
    if isinstance(train, LazyRows):
        ends = outline.end_token_ids
        return render_lazily(
            train,
            Renderer(tokenizer=outline.tokenizer, prompt_format=prompt_format, context_limit=room, end_token_ids=ends),
        )
    count = min(TOKENISED, len(train))
    chosen = [train[number * len(train) // count] for number in range(count)]
    return render_rows(chosen, outline.tokenizer, prompt_format, room, outline.end_token_ids)


def _disk(
    config: TrainConfig,
    policy: Policy,
    outline: ModelOutline,
    counts: RunCounts,
    lengths: Lengths,
    rendered: RenderedPrompts,
) -> DiskEstimate:
    parameters = list(policy.module.named_parameters())
    texts = [len(json.dumps(prompt.text, ensure_ascii=False).encode("utf-8", "replace")) for prompt in rendered.sample]
    return disk_estimate(
        counts,
        parameters,
        optimizer_memory(config.optimizer, parameters).kept,
        small_files(outline.tokenizer, outline.config),
        (sum(texts) / len(texts), lengths.mean_prompt),
        ModelShape.of(policy.module).vocabulary,
    )


def _notes(
    config: TrainConfig, loss: Loss, rows: Dataset, sieve: Sieve, rendered: RenderedPrompts
) -> list[str]:  # fmt: skip
    whole = isinstance(rows.train, LazyRows) or len(rows.train) <= TOKENISED
    parts = describe_parts(config, rows, rendered.prompts) if whole else []
    return [
        *about_data(sieve, rendered, whole=whole),
        *parts,
        *rows.notes,
        *remarks(config, loss),
        *unused_labels(rows, config),
    ]


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
