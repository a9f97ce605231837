"""The data that flows: Prompt → Rollout → RolloutGroup → ScoredGroup → TrainBatch → LossOutput → metrics.

Completions are ragged everywhere: flat tensors with a sequence index, never padded rectangles.
Shapes: T completion tokens, B completions, P pairs, G completions of one group, K named rewards.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import torch

    from pggrpo_cli.metrics import Metric

Message = dict[str, Any]
"""One turn of a conversation: {"role": "user", "content": "…"}."""

FinishReason = Literal["stop", "length", "offline"]
"""stop: an end token or a stop string; length: max_new_tokens reached; offline: it came with the data set."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OfflineCompletion:
    """A completion that the data set brings."""

    content: str | list[Message]
    """Plain text, or the assistant's messages of a conversational row."""
    preference: float | None
    """1 for chosen, 0 for rejected, None where the row has no preference (sft)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One row of a data set, before any tokenizer is known."""

    prompt: str | list[Message]
    columns: dict[str, Any] = field(default_factory=dict)
    """Every other column; rewards receive them by name."""
    completions: tuple[OfflineCompletion, ...] = ()
    """Empty for prompt-only rows; (chosen, rejected) for preference rows."""
    source: str = ""
    """Where it came from, for messages: "train.jsonl:12"."""
    part: str = ""
    """The source of a mixture that it belongs to; empty if the data set is one whole."""
    format: Mapping[str, Any] = field(default_factory=dict)
    """Keys of PromptFormat that its part sets for itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """What a data component loads: rows to train on and rows held out."""

    train: Sequence[Row]
    evaluation: Sequence[Row]
    """Each in memory, or read when a row's turn comes."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """How often the parts come, by name, in relation to each other; empty if the data set is one whole."""
    notes: tuple[str, ...] = ()
    """What is to be said of it before a run, a line each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """A row rendered and tokenised for one model."""

    row: Row
    index: int
    """Position of the row in its split: the key of everything cached by row."""
    text: str
    token_ids: tuple[int, ...]
    completion_ids: tuple[tuple[int, ...], ...] = ()
    """Token ids of row.completions, in order; each ends with the end token."""
    truncated: bool = False
    """Whether token_ids are only the last of its tokens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawKey:
    """What a random number of a rollout depends on, beside sample and position (DESIGN: derived, not carried)."""

    seed: int
    purpose: Literal["rollout", "evaluation", "self_check", "generate"]
    step: int
    first_ordinal: int = 0
    """Ordinal in the step of the first prompt of this call; a refill continues the count."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rollout:
    """One sampled (or offline) completion of a prompt."""

    completion_ids: torch.Tensor
    """int64 [length]; the end token belongs to it."""
    logprobs: torch.Tensor | None
    """float32 [length], log softmax(logits / temperature) before truncation; None if not sampled by a policy."""
    text: str
    """Decoded without special tokens."""
    finish_reason: FinishReason
    preference: float | None = None
    """See OfflineCompletion.preference."""

    @property
    def chosen(self) -> bool:
        """Whether it is to be imitated: the data set brought it, as the chosen one of a pair or as a demonstration."""
        return self.finish_reason == "offline" and self.preference in (None, 1.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class RolloutGroup:
    """The completions of one prompt."""

    prompt: Prompt
    rollouts: list[Rollout]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """What a reward sees: one completion with its prompt and the row's columns."""

    prompt: str | list[Message]
    """As in the data set, with system prompt and suffix applied."""
    completion: str
    completion_ids: list[int]
    finish_reason: FinishReason
    columns: dict[str, Any]
    preference: float | None = None
    step: int = 0
    """The step in which it was sampled; 0: before the first."""
    group: int = 0
    """Which of the prompts scored together it belongs to: samples of one group have the same prompt."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreError:
    """In place of a score: why a completion could not be scored. The reward's `on_error` says what becomes of it."""

    message: str
    traceback: str = ""
    """Of the reward's own code; empty if there is none."""
    passing: bool = False
    """It may be otherwise later, such as a server that is down: where it would end the run, the run stops to be resumed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """What a reward may return in place of a list: the scores, and what is to be logged beside them."""

    scores: Sequence[float | ScoreError | None]
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Logged under these names, averaged over the calls of a step."""
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """One entry a sample; they go into samples.jsonl."""
    notes: Sequence[str] = ()
    """What the user should know; each text is shown once in a run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredGroup:
    """A group with what the rewards and the advantage made of it. A reward and an advantage are different fields."""

    prompt: Prompt
    rollouts: list[Rollout]
    rewards: list[float]
    """[G] weighted sum of the terms; NaN where no reward applied."""
    reward_terms: dict[str, list[float | None]]
    """Each named reward's unweighted scores, [G] each; None = does not apply."""
    advantages: list[float]
    """[G]; 0 where the reward is missing."""
    extra: dict[str, list[Any]] = field(default_factory=dict)
    """What the rewards said beside their scores, [G] each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainBatch:
    """One micro-batch's rows and the totals of its optimizer step. It serves every objective."""

    sequence_index: torch.Tensor
    """int64 [T]: which local completion a token belongs to; non-decreasing."""
    lengths: torch.Tensor
    """int64 [B]: trained tokens of each completion (those with token_weight ≠ 0); ≥ 1."""
    advantages: torch.Tensor
    """float32 [B]; zeros if the loss does not need them."""
    old_logprobs: torch.Tensor | None
    """float32 [T]: log π_old, frozen from the training forward; None if the loss does not need it."""
    ref_logprobs: torch.Tensor | None
    """float32 [T]: log π_orig; None without a reference."""
    token_weight: torch.Tensor | None
    """float32 [T] or None (all 1). 0 = context such as a tool's output: read, not trained."""
    importance_weight: torch.Tensor | None
    """float32 [T] or None: sampler→trainer correction; multiplies the surrogate, never KL or entropy."""
    pairs: torch.Tensor | None
    """int64 [P, 2]: local rows (chosen, rejected); None if the loss does not need pairs."""
    num_sequences: int
    """Completions of the whole optimizer step, masked ones included."""
    num_tokens: int
    """Trained tokens of the whole optimizer step."""
    num_pairs: int
    """Pairs of the whole optimizer step."""
    max_new_tokens: int
    """The sampler's limit (dr_grpo's constant); for offline data the longest completion of the step."""
    chosen: torch.Tensor | None = None
    """bool [B]: completions of the data set that are to be imitated (Rollout.chosen); None: there are none."""
    num_chosen: int = 0
    """Chosen completions of the whole optimizer step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenScores:
    """What a policy says of the completion tokens of a micro-batch."""

    logprobs: torch.Tensor
    """float32 [T], of softmax(logits / temperature)."""
    entropies: torch.Tensor | None
    """float32 [T] entropy of that distribution in nats; carries a gradient only if the loss needs entropy."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LossOutput:
    """A micro-batch's share of the step's loss: the shares of all micro-batches add up to the loss of the full batch."""

    loss: torch.Tensor
    """0-d, differentiable."""
    metrics: dict[str, Metric]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunContext:
    """What a component that opens something may know of the run."""

    run_dir: Path
    device: torch.device
    seed: int
    run_id: str
    resumed: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class RewardContext:
    """What a reward that opens something (a model, a server, a cache) may know of the run."""

    run_dir: Path | None
    """None where there is no run, as in `pggrpo reward test`."""
    device: str
    seed: int


StateDict = dict[str, Any]
"""A flat mapping: values are JSON-able or tensors. Nothing else survives a checkpoint."""
