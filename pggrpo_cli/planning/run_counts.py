"""How much of what a run does: prompts, completions, tokens, updates, evaluations, checkpoints. Arithmetic alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pggrpo_cli.config import TrainConfig
from pggrpo_cli.prompts import RenderedPrompts


@dataclass(frozen=True, kw_only=True, slots=True)
class Lengths:
    """Tokens of the prompts and of the completions that the data set brings; both of a sample of it."""

    mean_prompt: float
    longest_prompt: int
    mean_completion: float
    """0 if the data set brings none."""
    prompts: int
    """Rows to train on."""
    held_out: int

    @classmethod
    def of(cls, prompts: Sequence[int], completions: Sequence[int], *, rows: int, held_out: int) -> Lengths:
        """From the lengths of each; prompts are not empty."""
        return cls(
            mean_prompt=sum(prompts) / len(prompts),
            longest_prompt=max(prompts),
            mean_completion=sum(completions) / len(completions) if completions else 0.0,
            prompts=rows,
            held_out=held_out,
        )

    def of_more(self, rows: int) -> Lengths:
        """The same for so many rows, which these were a sample of."""
        return replace(self, prompts=rows)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunCounts:
    """Of a whole run; where a number is of a step, its name says so."""

    steps: int
    prompts_per_step: int
    group_size: int
    completions_per_step: int
    completion_tokens: int
    """At most, of a completion; the mean of the data set's own where nothing is sampled."""
    samples: bool
    """Whether completions are sampled; if not, the data set brings them."""
    tokens_per_step: int
    """At most: prompts once, completions."""
    minibatches: int
    updates_per_step: int
    updates: int
    micro_batch_tokens: int
    """At most, of the largest micro-batch."""
    micro_batches: int
    """At most, of an update."""
    epochs: float
    rows: int
    warmup_updates: int | None
    """None if the scheduler has no such key."""
    evaluations: tuple[int, ...]
    """The steps behind which the held-out prompts are answered; 0 is before the first."""
    evaluated_prompts: int
    evaluation_tokens: int
    """At most, of an answer."""
    checkpoints: tuple[int, ...]
    """The steps that are certainly saved; a best evaluation may add one."""
    written: int
    """Checkpoints in all, at most: every evaluation may be the best so far."""
    kept: int
    """Of them, on the disk at the end, at most."""


def lengths_of(rendered: RenderedPrompts, held_out: int) -> Lengths:
    return Lengths.of(
        [len(prompt.token_ids) for prompt in rendered.sample],
        [len(ids) for prompt in rendered.sample for ids in prompt.completion_ids],
        rows=len(rendered.prompts),
        held_out=held_out,
    )


def run_counts(config: TrainConfig, lengths: Lengths) -> RunCounts:
    trainer, sampler = config.trainer, config.sampler
    steps, prompts, group = trainer.max_steps, trainer.prompts_per_step, int(sampler["group_size"])
    limit = sampler.get("max_new_tokens")
    longest = int(limit) if limit else round(lengths.mean_completion)
    cost = round(lengths.mean_prompt) + group * longest
    updates_per_step = trainer.passes_per_rollout * trainer.minibatches
    groups = -(-prompts // trainer.minibatches)
    fitting, micro_batches = _micro_batches(
        groups, cost, round(lengths.mean_prompt), longest, trainer.micro_batch_tokens
    )
    evaluates = config.evaluation.every is not None and lengths.held_out > 0
    evaluations = (0, *_due(config.evaluation.every, steps)) if evaluates else ()
    checkpoints = _due(config.checkpoint.every, steps)
    best = config.checkpoint.keep_best is not None
    written = len({*checkpoints, *(evaluations[1:] if best else ())})
    warmup = config.scheduler.get("warmup_updates")
    return RunCounts(
        steps=steps,
        prompts_per_step=prompts,
        group_size=group,
        completions_per_step=prompts * group,
        completion_tokens=longest,
        samples=bool(limit),
        tokens_per_step=prompts * cost,
        minibatches=trainer.minibatches,
        updates_per_step=updates_per_step,
        updates=steps * updates_per_step,
        micro_batch_tokens=fitting,
        micro_batches=micro_batches,
        epochs=steps * prompts / max(lengths.prompts, 1),
        rows=lengths.prompts,
        warmup_updates=None if warmup is None else int(warmup),
        evaluations=evaluations,
        evaluated_prompts=min(config.evaluation.num_prompts, lengths.held_out) if evaluates else 0,
        evaluation_tokens=int(config.evaluation.max_new_tokens or limit or 0) if evaluates else 0,
        checkpoints=checkpoints,
        written=written,
        kept=min(written, config.checkpoint.keep_last + best),
    )


def _micro_batches(groups: int, cost: int, prompt: int, completion: int, budget: int) -> tuple[int, int]:
    """(tokens of the largest, how many) for one update of `groups` groups, split as batching.micro_batches does."""
    if cost <= budget:
        fitting = min(groups, budget // cost)
        return fitting * cost, -(-groups // fitting)
    rows = max(1, (cost - prompt) // max(completion, 1))
    at_once = max(1, (budget - prompt) // max(completion, 1))
    return prompt + min(rows, at_once) * completion, groups * -(-rows // at_once)


def _due(every: int | None, steps: int) -> tuple[int, ...]:
    """Every so many steps, and after the last."""
    return tuple(sorted({*(range(every, steps + 1, every) if every else ()), steps}))
