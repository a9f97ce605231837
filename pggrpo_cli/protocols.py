"""Everything a user may replace, on one page.

A component is a frozen, keyword-only dataclass of configuration. One that needs something alive has
`open(context)`, a context manager that yields the working object; one whose working object must survive a resume
gives that object `state()` and `load(state)`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    import torch

    from pggrpo_cli.policy import LoadedModel, Policy
    from pggrpo_cli.types import (
        Dataset,
        DrawKey,
        LossOutput,
        Prompt,
        RolloutGroup,
        RunContext,
        Sample,
        ScoreError,
        Scores,
        StateDict,
        TokenScores,
        TrainBatch,
    )


class Model(Protocol):
    """Where weights and tokenizer come from."""

    def load(self) -> LoadedModel:
        """The module in float32 on the CPU, its tokenizer, and where they came from.

        Raises ConfigError (`model.path`: …) if the files are missing or of a kind that is refused.
        """
        ...


class Data(Protocol):
    """Where rows come from."""

    def load(self, seed: int) -> Dataset:
        """All rows, split into train and evaluation as a pure function of `seed`.

        Raises DataError naming file, line and column.
        """
        ...


class Sampler(Protocol):
    """How completions come about. `group_size` and `temperature` are fields of every sampler."""

    @property
    def group_size(self) -> int: ...
    @property
    def temperature(self) -> float: ...

    def open(self, context: RunContext) -> AbstractContextManager[OpenSampler]: ...


class OpenSampler(Protocol):
    """A sampler at work."""

    def sample(self, policy: Policy, prompts: Sequence[Prompt], draws: DrawKey) -> list[RolloutGroup]:
        """One group per prompt, in the order of the prompts."""
        ...


class Reward(Protocol):
    """Scores completions, a batch at a time. One that needs something alive has `open(context: RewardContext)`."""

    def score(self, samples: Sequence[Sample]) -> Sequence[float | ScoreError | None] | Scores:
        """One score per sample; None: this reward does not apply to this one; ScoreError: it cannot be scored, and
        `on_error` says what becomes of it. Scores carries what is to be logged beside them."""
        ...


class Advantage(Protocol):
    """Rewards to advantages, over the whole step. Stateless."""

    def __call__(
        self, rewards: torch.Tensor, terms: torch.Tensor, weights: torch.Tensor, group_index: torch.Tensor
    ) -> torch.Tensor:
        """rewards [B], terms [B, K], weights [K], group_index [B] → advantages [B]. NaN = missing.

        Terms are scaled, clipped and gated, but not weighted: an advantage that standardises each of them would undo a
        weight within. rewards = Σ weight · term over the terms that are there. A missing reward gives 0 and is left out
        of its group's statistics; a constant group gives exactly 0.
        """
        ...


class Pairing(Protocol):
    """Groups to pairs of rows, over the whole step. Stateless."""

    def __call__(self, rewards: torch.Tensor, group_index: torch.Tensor) -> torch.Tensor:
        """rewards [B] (NaN = missing), group_index [B] → pairs int64 [P, 2] of rows (chosen, rejected)."""
        ...


class Loss(Protocol):
    """An objective. The loop asks it what it needs and never for its name."""

    @property
    def needs_reference(self) -> bool: ...
    @property
    def needs_old_logprobs(self) -> bool: ...
    @property
    def needs_pairs(self) -> bool: ...
    @property
    def needs_entropy(self) -> bool: ...
    @property
    def needs_advantages(self) -> bool: ...
    @property
    def needs_zero_advantages(self) -> bool:
        """Whether a completion whose advantage is 0 has a gradient all the same; if not, it need not be computed."""
        ...

    def __call__(self, policy: TokenScores, batch: TrainBatch) -> LossOutput: ...


class Logger(Protocol):
    """Where metrics go, beside metrics.jsonl."""

    def open(self, context: RunContext) -> AbstractContextManager[OpenLogger]: ...


class OpenLogger(Protocol):
    def log(self, step: int, metrics: dict[str, float | None]) -> None:
        """None stands for NaN or infinity."""
        ...


@runtime_checkable
class Stateful(Protocol):
    """An open object that must survive a resume."""

    def state(self) -> StateDict: ...
    def load(self, state: StateDict) -> None: ...
