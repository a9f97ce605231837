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
SAMPLE = 300
"""Bytes of a line of samples.jsonl, prompt and completion apart: names, and numbers of 17 digits."""
BYTES_OF_A_TOKEN = 6
"""Of text: more than the 4.4 that were measured with SmolLM2, as characters of other scripts take several bytes each."""
LOGPROB = len("-12.34567, ")
"""What the sampler made of a token; measured: 9.9 bytes."""


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
    counts: RunCounts,
    parameters: Sequence[tuple[str, Any]],
    optimizer: int,
    small: int,
    prompt: tuple[float, float],
    vocabulary: int,
) -> DiskEstimate:
    """`parameters`: named tensors, of shapes alone too; `optimizer`: bytes of its state; `small`: of the tokenizer's and
    the configuration's files; `prompt`: bytes of its text and its tokens, on average."""
    weights = sum(tensor.numel() * tensor.element_size() for _, tensor in parameters)
    tensors_of_state = 3 if optimizer else 0  # two moments and a count; others have fewer, and headers are small
    of_names = sum(
        (1 + tensors_of_state) * (len(name) + HEADER_OF_A_TENSOR) + tensors_of_state * len("/exp_avg") + len(name) + 8
        for name, _ in parameters
    )
    checkpoint = weights + optimizer + of_names + small + SMALL_FILES
    token_id = len(f"{vocabulary - 1}, ")
    text, tokens = prompt
    asked, answered = tokens * token_id, BYTES_OF_A_TOKEN + token_id
    every_token = answered + (LOGPROB if counts.samples else 0)
    completions = counts.completions_per_step * (SAMPLE + text + every_token * counts.completion_tokens)
    every_step = METRICS_OF_A_STEP + counts.prompts_per_step * asked + completions
    an_answer = SAMPLE + text + asked + (answered + LOGPROB) * counts.evaluation_tokens
    evaluated = len(counts.evaluations) * (METRICS_OF_A_STEP + counts.evaluated_prompts * an_answer)
    return DiskEstimate(
        checkpoint=checkpoint,
        at_once=(counts.kept + (counts.written > counts.kept)) * checkpoint,
        lines=round(counts.steps * every_step + evaluated),
    )


def small_files(tokenizer: Any, config: Any) -> int:
    """Bytes of the tokenizer's files, by writing them, and of config.json."""
    with tempfile.TemporaryDirectory(prefix="pggrpo-plan-") as folder:
        tokenizer.save_pretrained(folder)
        config.save_pretrained(folder)
        return sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
