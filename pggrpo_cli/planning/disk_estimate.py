"""What a run will write: its checkpoints, and what it says of each step."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pggrpo_cli.planning.run_counts import RunCounts

HEADER_OF_A_TENSOR = 85
"""Bytes of a tensor's entry in a safetensors header, its name apart."""
SMALL_FILES = 3500
"""Bytes of a checkpoint's manifest, state and generation configuration, names of parameters apart."""
METRICS_OF_A_STEP = 1100
SAMPLE = 220
"""Bytes of a line of samples.jsonl, prompt and completion apart."""
BYTES_OF_A_TOKEN = 4
"""Of text, about."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DiskEstimate:
    """In bytes."""

    checkpoint: int
    at_once: int
    """Those that are kept, and the next one while it is written: the oldest goes only when that is whole."""
    lines: int
    """metrics.jsonl and samples.jsonl at the end, at most."""

    @property
    def peak(self) -> int:
        return self.at_once + self.lines


def disk_estimate(
    counts: RunCounts, parameters: Sequence[tuple[str, Any]], optimizer: int, small: int, prompt_bytes: float
) -> DiskEstimate:
    """`parameters`: named tensors, of shapes alone too; `optimizer`: bytes of its state; `small`: of the tokenizer's and
    the configuration's files; `prompt_bytes`: of a prompt's text, on average."""
    weights = sum(tensor.numel() * tensor.element_size() for _, tensor in parameters)
    tensors_of_state = 3 if optimizer else 0  # two moments and a count; others have fewer, and headers are small
    of_names = sum(
        (1 + tensors_of_state) * (len(name) + HEADER_OF_A_TENSOR) + tensors_of_state * len("/exp_avg") + len(name) + 8
        for name, _ in parameters
    )
    checkpoint = weights + optimizer + of_names + small + SMALL_FILES
    every_step = METRICS_OF_A_STEP + counts.completions_per_step * _line(prompt_bytes, counts.completion_tokens)
    evaluated = len(counts.evaluations) * counts.evaluated_prompts * _line(prompt_bytes, counts.evaluation_tokens)
    return DiskEstimate(
        checkpoint=checkpoint,
        at_once=(counts.kept + (counts.written > counts.kept)) * checkpoint,
        lines=round(counts.steps * every_step + evaluated),
    )


def _line(prompt_bytes: float, tokens: int) -> float:
    return SAMPLE + prompt_bytes + BYTES_OF_A_TOKEN * tokens


def small_files(tokenizer: Any, config: Any) -> int:
    """Bytes of the tokenizer's files, by writing them, and of config.json."""
    with tempfile.TemporaryDirectory(prefix="pggrpo-plan-") as folder:
        tokenizer.save_pretrained(folder)
        config.save_pretrained(folder)
        return sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
