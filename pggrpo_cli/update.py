"""The update: micro-batches forward and backward, one optimizer step a minibatch, several passes over a rollout."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pggrpo_cli.batching import MicroBatch, Minibatch
from pggrpo_cli.errors import DivergedError
from pggrpo_cli.metrics import Metric, maximum, mean, merge, total
from pggrpo_cli.policy import Policy
from pggrpo_cli.protocols import Loss
from pggrpo_cli.reference import Reference
from pggrpo_cli.types import StateDict, TokenScores, TrainBatch


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
    from_data_set: bool
    """Completions come with the data set: their reference log-probabilities are cached."""


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

    def update(self, minibatches: Sequence[Minibatch]) -> dict[str, Metric]:
        """Trains on one rollout. Raises DivergedError after `max_bad_updates` in a row were not finite."""
        device = self._policy.device
        started = time.monotonic()
        references = [[self._reference_logprobs(micro) for micro in mini.micro_batches] for mini in minibatches]
        parts = [{"time/reference": total(time.monotonic() - started)}] if self._reference is not None else []
        frozen: list[list[torch.Tensor | None]] = [[None] * len(mini.micro_batches) for mini in minibatches]
        if self._loss.needs_old_logprobs and self._settings.passes_per_rollout * len(minibatches) > 1:
            # π_old must not move while we train; a single update needs no extra forward: it is its own π_old.
            frozen = [[self._old_logprobs(micro) for micro in mini.micro_batches] for mini in minibatches]
        for number in range(self._settings.passes_per_rollout):
            for mini, olds, refs in zip(minibatches, frozen, references, strict=True):
                loss = 0.0
                for micro, old, ref in zip(mini.micro_batches, olds, refs, strict=True):
                    # Compared with the sampler is π_old, not what became of it.
                    is_old = number == 0 and (old is not None or mini is minibatches[0])
                    share, metrics = self._backward(micro, mini, old, ref, device, compare=is_old)
                    loss += share
                    parts.append(metrics)
                parts.append(self._apply(loss))
        return merge(parts)

    def state(self) -> StateDict:
        return {"scheduler": self.scheduler.state_dict(), "bad_in_a_row": self._bad_in_a_row}

    def load(self, state: StateDict) -> None:
        self.scheduler.load_state_dict(state["scheduler"])
        self._bad_in_a_row = state["bad_in_a_row"]

    def _reference_logprobs(self, micro: MicroBatch) -> torch.Tensor | None:
        if self._reference is None:
            return None
        keys = None
        if self._settings.from_data_set:
            keys = [(group.prompt_index, row.sample) for group in micro.groups for row in group.rows]
        return self._reference.logprobs(micro.packed, self._settings.temperature, keys)

    def _old_logprobs(self, micro: MicroBatch) -> torch.Tensor:
        packed = micro.packed.to(self._policy.device)
        with torch.no_grad():
            return self._policy.score(packed, self._settings.temperature, with_entropy=False).logprobs

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
        longest = max(int(batch.lengths.max()) for batch in mini.micro_batches)
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
            max_new_tokens=self._settings.max_new_tokens or longest,
        )
        output = self._loss(scores, batch)
        output.loss.backward()
        metrics = dict(output.metrics)
        if compare and micro.sampler_logprobs is not None:
            difference = (old - micro.sampler_logprobs.to(device)).abs()
            metrics["sampling/sampling_logp_difference/mean"] = mean(difference.sum(), difference.numel())
            metrics["sampling/sampling_logp_difference/max"] = maximum(difference.max())
        return float(output.loss.detach()), metrics

    def _importance_weight(self, micro: MicroBatch, old: torch.Tensor) -> torch.Tensor | None:
        """Truncated importance weights π_old/π_sampler of each token, at most `importance_cap`."""
        cap = self._settings.importance_cap
        if cap is None or micro.sampler_logprobs is None:
            return None
        return (old - micro.sampler_logprobs.to(old.device)).exp().clamp(max=cap)

    def _apply(self, loss: float) -> dict[str, Metric]:
        """Clips and applies the gathered gradient, unless it or the loss is not finite."""
        started = time.monotonic()
        limit = math.inf if self._settings.max_grad_norm is None else self._settings.max_grad_norm
        norm = float(torch.nn.utils.clip_grad_norm_(self._policy.module.parameters(), limit))
        rate = float(self.optimizer.param_groups[0]["lr"])
        good = math.isfinite(loss) and math.isfinite(norm)
        if good:
            self.optimizer.step()
            self.scheduler.step()
            self._bad_in_a_row = 0
        else:
            self._bad_in_a_row += 1
        self.optimizer.zero_grad(set_to_none=True)
        if self._bad_in_a_row >= self._settings.max_bad_updates:
            raise DivergedError(
                f"`trainer.max_bad_updates`: {self._bad_in_a_row} updates in a row had a loss of {loss} and a gradient "
                f"norm of {norm}; none of them was applied. The last checkpoint is from before. Try a smaller "
                "optimizer.lr, a smaller trainer.max_grad_norm, or model.compute_dtype=float32."
            )
        applied = {"loss": mean(loss, 1), "grad_norm": mean(norm, 1)} if good else {}
        return {
            **applied,
            "learning_rate": maximum(rate),
            "updates/skipped": total(0.0 if good else 1.0),
            "time/optimizer": total(time.monotonic() - started),
        }
