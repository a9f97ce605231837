"""What a run will hold in memory, part by part, in each phase: the peak is the worst phase, not the sum of everything.

On a CPU, freed memory is kept (memory.keep_freed_memory), and what one phase has freed lies between what lives: blocks as
large as the next phase wants are hardly found in it. So what came before an update counts once more beside it.

Arithmetic alone, in bytes; docs/memory.md says where the parts come from and how near the peak is to measured ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pggrpo_cli.planning.model_shape import ModelShape
from pggrpo_cli.planning.run_counts import RunCounts

FIRST_USE = 70_000_000
"""What a process takes when a model loads and computes for the first time: tokenizer, the model's own module, kernels,
threads' stacks. Measured: 55 MB with the tiny model, 82 MB with SmolLM2's tokenizer of 49,152 tokens."""
FLOAT32 = 4
CHOOSING = 3
"""Tensors [rows, vocabulary] in float32 while a token is chosen: logits, log-probabilities, one on the way."""
TILE = 2048 * 512 * FLOAT32
"""A tile of logits: logprobs.TILE_ROWS × TILE_COLUMNS."""
TILES = 4
ATTENTION_BLOCK = 4 << 20
"""packed_attention.BLOCK_ELEMENTS"""
BLOCKS = 20
"""Bytes an element of such a block in the backward: four tensors in float32, two in bfloat16."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryFacts:
    """What the estimate follows from. Bytes, unless said otherwise."""

    base: int
    """Of the process before the model: interpreter, libraries, rows. 0 on a GPU, where they lie elsewhere."""
    shape: ModelShape
    weight_width: int
    compute_width: int
    rollout_copies: int
    """How often a rollout takes the linear weights and the head once more in the compute dtype: cast, and on a CPU laid out
    anew, with the casts' places between them."""
    keeps_freed: bool
    """Whether what a phase frees stays with the process."""
    kept_per_token: int
    """Activations that wait for the backward."""
    kept_fixed: int
    """Weights that autocast has cast and the backward needs."""
    activations_guessed: bool
    """Whether the model could not be asked for these two."""
    checkpoints_activations: bool
    reference: int
    """Frozen; 0: none, or on another device."""
    reference_loading: int
    """Beside `reference`, while it is made."""
    optimizer: int
    optimizer_working: int
    rewards: int
    """Models that score, in this process and on this device."""
    longest_prompt: int
    """Tokens."""
    max_rows: int
    """Completions that are decoded together."""
    loads_twice: bool
    """Whether the file is no plain float32 one, so that its numbers lie there twice while it is read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryEstimate:
    phases: Mapping[str, Mapping[str, int]]
    """By phase: bytes of each part at its worst moment."""
    activations_guessed: bool = False

    @property
    def peak_phase(self) -> str:
        return max(self.phases, key=lambda phase: sum(self.phases[phase].values()))

    @property
    def peak(self) -> int:
        return sum(self.phases[self.peak_phase].values())

    @property
    def parts(self) -> Mapping[str, int]:
        """Of the peak, the largest first."""
        return dict(sorted(self.phases[self.peak_phase].items(), key=lambda part: -part[1]))


def memory_estimate(facts: MemoryFacts, counts: RunCounts) -> MemoryEstimate:
    """Of a run that does more than one update, its moments are there in every phase but the first."""
    weights = facts.shape.parameters * facts.weight_width
    sampled = [
        _sampling(facts, counts.prompts_per_step, counts.group_size, counts.completion_tokens if counts.samples else 0),
        _sampling(facts, counts.evaluated_prompts, 1, counts.evaluation_tokens),
    ]
    always = {
        "libraries and data": facts.base + (FIRST_USE if facts.base else 0),
        "weights": weights,
        "reward models": facts.rewards,
    }
    trained = always | {"reference": facts.reference}
    moments = {"optimizer": facts.optimizer}
    later = trained | (moments if counts.updates > 1 else {})
    phases = {
        "load": always | {"reference": facts.reference + facts.reference_loading} | _loading(facts),
        "rollout": later | sampled[0],
        "update": _worst(_update(facts, counts, later | _left_over(facts, sampled), trained | moments)),
        "checkpoint": trained | moments | {"on the way": facts.shape.largest * FLOAT32},
    }
    if counts.evaluations:
        phases["evaluation"] = (trained | moments if len(counts.evaluations) > 1 else trained) | sampled[1]
    return MemoryEstimate(
        phases={phase: {part: size for part, size in parts.items() if size} for phase, parts in phases.items()},
        activations_guessed=facts.activations_guessed,
    )


def _loading(facts: MemoryFacts) -> dict[str, int]:
    numbers = facts.shape.parameters * FLOAT32
    narrowed = numbers if facts.weight_width != FLOAT32 else 0
    return {"on the way": max(numbers if facts.loads_twice else 0, narrowed)}


def _left_over(facts: MemoryFacts, sampled: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """What loading and rollouts have freed before an update: blocks of a layer's size among those that live. Keys, values and
    logits are few large blocks, which are found again."""
    freed = facts.reference_loading + max(parts.get("rollout weights", 0) for parts in sampled)
    return {"freed, not reused": freed if facts.keeps_freed else 0}


def _sampling(facts: MemoryFacts, prompts: int, group_size: int, new_tokens: int) -> dict[str, int]:
    """As decoding.py does it: so many rows at a time, each prompt's keys once, weights prepared for few rows."""
    if not new_tokens or not prompts:
        return {}
    shape = facts.shape
    rows = min(max(facts.max_rows, group_size), prompts * group_size)
    slots = min(prompts, 2 * (rows // group_size))
    return {
        "rollout weights": (shape.linear + shape.head) * facts.compute_width * facts.rollout_copies,
        "keys and values": (slots * facts.longest_prompt + rows * new_tokens) * shape.key_values * facts.compute_width,
        "logits": rows * shape.vocabulary * (facts.compute_width + CHOOSING * FLOAT32),
    }


def _update(
    facts: MemoryFacts, counts: RunCounts, before: Mapping[str, int], after: Mapping[str, int]
) -> list[dict[str, int]]:
    """Its three worst moments: activations are whole, gradients are whole, the optimizer steps. `before`, `after`: what
    is there before and after the optimizer's first step."""
    shape, tokens = facts.shape, counts.micro_batch_tokens
    gradients = shape.parameters * facts.weight_width
    activations = tokens * facts.kept_per_token
    if facts.checkpoints_activations:  # the input of each layer, and one layer computed again
        activations = tokens * shape.layers * shape.hidden * FLOAT32 + activations // shape.layers
    casts = facts.kept_fixed
    head = shape.head * facts.compute_width if casts else 0
    tiles = {"logits": TILES * TILE}
    return [
        {
            **before,
            "activations": activations,
            "cast weights": casts + head,
            "gradients": shape.head * facts.weight_width + (gradients if counts.micro_batches > 1 else 0),
            **tiles,
        },
        {**before, "gradients": gradients + shape.head * facts.weight_width, "activations": activations // shape.layers,
         "attention": _attention(facts, counts), "freed, not reused": 0},
        {**after, "gradients": gradients, "on the way": facts.optimizer_working},
    ]  # fmt: skip


def _attention(facts: MemoryFacts, counts: RunCounts) -> int:
    """Of the weights of one block in its backward."""
    own = counts.completion_tokens
    rectangle = facts.shape.heads * counts.group_size * own * (facts.longest_prompt + own)
    return min(ATTENTION_BLOCK, rectangle) * BLOCKS


def _worst(moments: list[dict[str, int]]) -> dict[str, int]:
    return max(moments, key=lambda parts: sum(parts.values()))
