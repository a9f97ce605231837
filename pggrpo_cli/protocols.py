"""Everything a user may replace, on one page.

A component is a frozen, keyword-only dataclass of configuration. One that needs something alive has
`open(context)`, a context manager that yields the working object; one whose working object must survive a resume
gives that object `state()` and `load(state)`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    import torch

    from pggrpo_cli.metrics import Metric
    from pggrpo_cli.policy import LoadedModel, Policy
    from pggrpo_cli.types import (
        Dataset,
        DrawKey,
        FinishReason,
        LossOutput,
        Prompt,
        RolloutGroup,
        RunContext,
        Sample,
        ScoredGroup,
        ScoreError,
        Scores,
        StateDict,
        TokenScores,
        TrainBatch,
    )


class Model(Protocol):
    """Where weights and tokenizer come from. One that has `outline() -> ModelOutline` can tell tokenizer and context
    without its weights, for `pggrpo data preview`."""

    def load(self) -> LoadedModel:
        """The module in float32 on the CPU, its tokenizer, and where they came from.

        Raises ConfigError (`model.path`: …) if the files are missing or of a kind that is refused.
        """
        ...


class Data(Protocol):
    """Where rows come from. One whose `load(seed, sieve)` takes a filters.Sieve applies it before it holds rows out; the
    rows to train on of another one are filtered afterwards."""

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


class Finished(Protocol):
    def __call__(self, ordinal: int, group: RolloutGroup) -> None:
        """`ordinal`: the place of its prompt among those of the call."""
        ...


class OpenSampler(Protocol):
    """A sampler at work."""

    def sample(
        self, policy: Policy, prompts: Sequence[Prompt], draws: DrawKey, finished: Finished | None = None
    ) -> list[RolloutGroup]:
        """One group per prompt, in the order of the prompts. `finished` may be told of a group once it is whole, so that
        it is scored while others are still sampled; more than once of the same one if that had to be done again."""
        ...


class Drawn(Protocol):
    def __call__(self, ordinal: int, sample: int, token_ids: Sequence[int], finish_reason: FinishReason | None) -> None:
        """The tokens of one completion so far, the newest last; `finish_reason` is None while it goes on. `ordinal`: the
        place of its prompt among those of the call. Where memory ran out they are told again, from the first one on."""
        ...


@runtime_checkable
class StreamingSampler(Protocol):
    """An open sampler that can say each token as it is drawn."""

    def stream(self, policy: Policy, prompts: Sequence[Prompt], draws: DrawKey, drawn: Drawn) -> list[RolloutGroup]:
        """What `sample` gives, token for token; `drawn` is told meanwhile."""
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
    """An objective. The loop asks it what it needs and never for its name.

    One that learns from the data set's chosen completions and demonstrations by their likelihood says so with
    `needs_chosen = True`: they are then kept also where no reward applies. Without that attribute it does not.
    """

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


class Order(Protocol):
    """Which rows train when."""

    def begin(self, prompts: Sequence[Prompt], weights: Mapping[str, float], seed: int, identity: str) -> OpenOrder:
        """An order of `prompts`. `weights`: of the parts of a mixture, by name; `identity` says which prompts they are.

        Raises DataError if a part has no prompt.
        """
        ...


class OpenOrder(Protocol):
    """An order at work."""

    def rows(self, wanted: int, consumed: int, taken: Sequence[int]) -> list[int]:
        """Places of the next `wanted` prompts after `consumed`; `taken`: those that this step has already.

        Asked again it says the same: a rollout may be abandoned and done again.
        """
        ...

    def learn(self, groups: Sequence[ScoredGroup]) -> dict[str, Metric]:
        """Told once of each step, when it is done: all that was scored in it. What it logs of itself."""
        ...


@runtime_checkable
class Stateful(Protocol):
    """An open object that must survive a resume."""

    def state(self) -> StateDict: ...
    def load(self, state: StateDict) -> None: ...
