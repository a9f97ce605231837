"""The update: micro-batches forward and backward, one optimizer step a minibatch, several passes over a rollout."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch

from pggrpo_cli.batching import MicroBatch, Minibatch, largest_cost, resplit
from pggrpo_cli.errors import DivergedError, OutOfMemory
from pggrpo_cli.metrics import Metric, maximum, mean, merge, total
from pggrpo_cli.out_of_memory import first_line, is_out_of_memory, release
from pggrpo_cli.policy import Policy
from pggrpo_cli.protocols import Loss
from pggrpo_cli.reference import Reference
from pggrpo_cli.types import StateDict, TokenScores, TrainBatch
from pggrpo_cli.warn import warn

OnBadUpdate = Callable[[Minibatch, float, float], None]
"""(minibatch, loss, gradient norm) of an update that was not applied."""
PerRow = dict[int, torch.Tensor]
"""Log-probabilities [tokens] of each completion, by the identity of its TrainRow: they outlive a change of micro-batches."""
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True, slots=True)
class UpdateSettings:
    """What the update takes from the configuration."""

    temperature: float
    passes_per_rollout: int
    max_grad_norm: float | None
    importance_cap: float | None
    max_bad_updates: int
    max_new_tokens: int | None
    """The sampler's; None if it has none."""


class Updater:
    """Owns what changes in an update: the optimizer, the scheduler and the count of updates that had to be skipped."""

    def __init__(
        self,
        policy: Policy,
        optimizer: torch.optim.Optimizer,
        scheduler: Any,
        loss: Loss,
        reference: Reference | None,
        settings: UpdateSettings,
    ) -> None:
        self.optimizer = optimizer
        self.scheduler = scheduler
        self._policy, self._loss, self._reference, self._settings = policy, loss, reference, settings
        self._bad_in_a_row = 0
        self._budget: int | None = None
        """Tokens of a micro-batch since memory ran out; None while it never has."""
        self._retries = 0

    def update(self, minibatches: Sequence[Minibatch], on_bad: OnBadUpdate | None = None) -> dict[str, Metric]:
        """Trains on one rollout. `on_bad` is told of every update that was not applied.

        Raises DivergedError after `max_bad_updates` in a row were not finite, OutOfMemory if no smaller micro-batch helps.
        """
        minis = list(minibatches)
        retries = self._retries
        started = time.monotonic()
        references: PerRow = {}
        if self._reference is not None:
            minis = [self._retried(mini, partial(self._add_references, references))[0] for mini in minis]
        parts = [{"time/reference": total(time.monotonic() - started)}] if self._reference is not None else []
        olds: PerRow = {}
        if self._loss.needs_old_logprobs and self._settings.passes_per_rollout * len(minis) > 1:
            # π_old must not move while we train; a single update needs no extra forward: it is its own π_old.
            minis = [self._retried(mini, partial(self._add_olds, olds))[0] for mini in minis]
        for number in range(self._settings.passes_per_rollout):
            for index in range(len(minis)):
                # Compared with the sampler is π_old, not what became of it.
                is_old = number == 0 and (bool(olds) or index == 0)
                work = partial(self._gradient, olds, references, compare=is_old)
                minis[index], (loss, metrics) = self._retried(minis[index], work)
                parts += [*metrics, self._apply(loss, minis[index], on_bad)]
        if self._retries > retries:
            parts.append({"memory/out_of_memory": total(self._retries - retries)})
        return merge(parts)

    def _retried(self, mini: Minibatch, work: Callable[[Minibatch], Result]) -> tuple[Minibatch, Result]:
        """`work` on a minibatch, and again on smaller micro-batches while memory runs out: the gradient is the same.

        The size that did is kept for the rest of the run."""
        while True:
            if self._budget is not None and largest_cost(mini) > self._budget:
                mini = resplit(mini, self._budget)
            try:
                return mini, work(mini)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                said = first_line(error)
            # Outside of the handler: its traceback held the tensors.
            self.optimizer.zero_grad(set_to_none=True)
            release(self._policy.device)
            budget = largest_cost(mini) // 2
            smaller = resplit(mini, budget) if budget else mini
            if largest_cost(smaller) >= largest_cost(mini):
                raise OutOfMemory(
                    f"`trainer.micro_batch_tokens`: memory ran out in the update with micro-batches of {2 * budget} tokens, "
                    f"and they cannot be split further ({said}). A smaller sampler.max_new_tokens or data.max_prompt_tokens, "
                    "model.gradient_checkpointing=true, or a machine with more memory would help."
                )
            self._retries += 1
            self._budget = budget
            warn(f"memory ran out in the update; the same step again with trainer.micro_batch_tokens={budget}")

    @property
    def going_well(self) -> bool:
        """Whether the last update was applied."""
        return self._bad_in_a_row == 0

    def state(self) -> StateDict:
        return {
            "scheduler": self.scheduler.state_dict(),
            "bad_in_a_row": self._bad_in_a_row,
            "micro_batch_tokens": self._budget,
        }

    def load(self, state: StateDict) -> None:
        self.scheduler.load_state_dict(state["scheduler"])
        self._bad_in_a_row = state["bad_in_a_row"]
        self._budget = state.get("micro_batch_tokens")

    def _add_references(self, references: PerRow, mini: Minibatch) -> None:
        assert self._reference is not None
        for micro in mini.micro_batches:
            keys = [
                (group.prompt_index, row.sample) if row.rollout.finish_reason == "offline" else None
                for group in micro.groups
                for row in group.rows
            ]
            references |= _by_row(micro, self._reference.logprobs(micro.packed, self._settings.temperature, keys))

    def _add_olds(self, olds: PerRow, mini: Minibatch) -> None:
        for micro in mini.micro_batches:
            packed = micro.packed.to(self._policy.device)
            with torch.no_grad():
                scores = self._policy.score(packed, self._settings.temperature, with_entropy=False)
            olds |= _by_row(micro, scores.logprobs)

    def _gradient(
        self, olds: PerRow, references: PerRow, mini: Minibatch, *, compare: bool
    ) -> tuple[float, list[dict[str, Metric]]]:
        """Forward and backward of all micro-batches: the loss, and the metrics of each."""
        loss, parts = 0.0, []
        for micro in mini.micro_batches:
            share, metrics = self._backward(
                micro, mini, _gathered(micro, olds), _gathered(micro, references), self._policy.device, compare=compare
            )
            loss += share
            parts.append(metrics)
        return loss, parts

    def _backward(
        self,
        micro: MicroBatch,
        mini: Minibatch,
        old: torch.Tensor | None,
        ref: torch.Tensor | None,
        device: torch.device,
        *,
        compare: bool,
    ) -> tuple[float, dict[str, Metric]]:
        scores = self._policy.score(micro.packed.to(device), self._settings.temperature, with_entropy=True)
        if not self._loss.needs_entropy and scores.entropies is not None:
            scores = TokenScores(logprobs=scores.logprobs, entropies=scores.entropies.detach())
        if old is None:
            old = scores.logprobs.detach()
        batch = TrainBatch(
            sequence_index=micro.packed.sequence_index.to(device),
            lengths=micro.lengths.to(device),
            advantages=micro.advantages.to(device),
            old_logprobs=old if self._loss.needs_old_logprobs else None,
            ref_logprobs=None if ref is None else ref.to(device),
            token_weight=None,
            importance_weight=self._importance_weight(micro, old),
            pairs=micro.pairs.to(device) if self._loss.needs_pairs else None,
            num_sequences=mini.num_sequences,
            num_tokens=mini.num_tokens,
            num_pairs=mini.num_pairs,
            max_new_tokens=self._settings.max_new_tokens or mini.longest,
            chosen=micro.chosen.to(device) if mini.num_chosen else None,
            num_chosen=mini.num_chosen,
        )
        output = self._loss(scores, batch)
        output.loss.backward()
        metrics = dict(output.metrics)
        if compare and micro.sampler_logprobs is not None:
            captured = micro.sampler_logprobs.to(device)
            sampled = ~captured.isnan()
            difference = torch.where(sampled, (old - captured).abs(), 0)
            metrics["sampling/sampling_logp_difference/mean"] = mean(difference.sum(), sampled.sum())
            metrics["sampling/sampling_logp_difference/max"] = maximum(difference.max())
        return float(output.loss.detach()), metrics

    def _importance_weight(self, micro: MicroBatch, old: torch.Tensor) -> torch.Tensor | None:
        """Truncated importance weights π_old/π_sampler of each token, at most `importance_cap`; 1 where no policy sampled."""
        cap = self._settings.importance_cap
        if cap is None or micro.sampler_logprobs is None:
            return None
        captured = micro.sampler_logprobs.to(old.device)
        return torch.where(captured.isnan(), 0, old - captured).exp().clamp(max=cap)

    def _apply(self, loss: float, mini: Minibatch, on_bad: OnBadUpdate | None) -> dict[str, Metric]:
        """Clips and applies the gathered gradient, unless it or the loss is not finite."""
        started = time.monotonic()
        limit = math.inf if self._settings.max_grad_norm is None else self._settings.max_grad_norm
        norm = float(torch.nn.utils.clip_grad_norm_(self._policy.module.parameters(), limit))
        rate = float(self.optimizer.param_groups[0]["lr"])
        good = math.isfinite(loss) and math.isfinite(norm)
        if good:
            self._optimizer_step()
            self.scheduler.step()
            self._bad_in_a_row = 0
        else:
            self._bad_in_a_row += 1
            if on_bad is not None:
                on_bad(mini, loss, norm)
        self.optimizer.zero_grad(set_to_none=True)
        if self._bad_in_a_row >= self._settings.max_bad_updates:
            raise DivergedError(
                f"`trainer.max_bad_updates`: {self._bad_in_a_row} updates in a row had a loss of {loss} and a gradient "
                f"norm of {norm}; none of them was applied. Try a smaller optimizer.lr, "
                "a smaller trainer.max_grad_norm, or model.compute_dtype=float32."
            )
        applied = {"loss": mean(loss, 1), "grad_norm": mean(norm, 1)} if good else {}
        return {
            **applied,
            "learning_rate": maximum(rate),
            "updates/skipped": total(0.0 if good else 1.0),
            "time/optimizer": total(time.monotonic() - started),
        }

    def _optimizer_step(self) -> None:
        """Not to be tried again if memory runs out in the middle: some of the weights have moved already."""
        try:
            self.optimizer.step()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemory(
                f"`optimizer`: memory ran out in its step ({first_line(error)}): beside weights and gradients it keeps "
                "tensors of the same size. An optimizer that keeps fewer (optimizer=sgd), model.weight_dtype=bfloat16, or "
                "a machine with more memory would help."
            ) from error


def _by_row(micro: MicroBatch, flat: torch.Tensor) -> PerRow:
    """[T] of a micro-batch, by row."""
    return dict(zip(map(id, micro.rows), flat.split(micro.lengths.tolist()), strict=True))


def _gathered(micro: MicroBatch, parts: PerRow) -> torch.Tensor | None:
    """The way back; None if there are none."""
    return torch.cat([parts[id(row)] for row in micro.rows]) if parts else None
