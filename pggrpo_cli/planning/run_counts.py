"""How much of what a run does: prompts, completions, tokens, updates, evaluations, checkpoints. Arithmetic alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from pggrpo_cli.config import TrainConfig
from pggrpo_cli.prompts import RenderedPrompts


@dataclass(frozen=True, kw_only=True, slots=True)
class Lengths:
    """Tokens of the prompts and of the completions that the data set brings; both of a sample of it."""

    mean_prompt: float
    longest_prompt: int
    mean_completion: float
    """0 if the data set brings none, as is the longest."""
    longest_completion: int
    prompts: int
    """Rows to train on."""
    held_out: int
    longest_prompts: tuple[int, ...] = field(repr=False)
    """Of the whole sample, the longest first."""
    largest_rows: tuple[int, ...] = field(repr=False)
    """Prompt and completions together, of the whole sample, the largest first."""

    @classmethod
    def of(cls, rows: Sequence[tuple[int, Sequence[int]]], *, prompts: int, held_out: int) -> Lengths:
        """`rows`: (the prompt's length, its completions'), not empty; a sample of so many `prompts`."""
        asked = [prompt for prompt, _ in rows]
        brought = [length for _, completions in rows for length in completions]
        return cls(
            mean_prompt=sum(asked) / len(asked),
            longest_prompt=max(asked),
            mean_completion=sum(brought) / len(brought) if brought else 0.0,
            longest_completion=max(brought, default=0),
            prompts=prompts,
            held_out=held_out,
            longest_prompts=tuple(sorted(asked, reverse=True)),
            largest_rows=tuple(sorted((prompt + sum(completions) for prompt, completions in rows), reverse=True)),
        )

    def of_more(self, rows: int) -> Lengths:
        """The same for so many rows, which these were a sample of."""
        return replace(self, prompts=rows)

    def largest(self, count: int, *, with_completions: bool) -> list[int]:
        """Tokens of each of so many prompts, the largest that can come together. A row of the sample stands for as many as
        there are rows a row of it; rows are taken again only where there are no others."""
        lengths, rows = self.largest_rows if with_completions else self.longest_prompts, max(self.prompts, 1)
        return [lengths[min(place % rows * len(lengths) // rows, len(lengths) - 1)] for place in range(count)]


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
    rows = [(len(prompt.token_ids), [len(ids) for ids in prompt.completion_ids]) for prompt in rendered.sample]
    return Lengths.of(rows, prompts=len(rendered.prompts), held_out=held_out)


def run_counts(config: TrainConfig, lengths: Lengths, *, pairs: bool = False) -> RunCounts:
    """`pairs`: whether the loss compares completions, which then stay in one micro-batch."""
    trainer, sampler = config.trainer, config.sampler
    steps, prompts, group = trainer.max_steps, trainer.prompts_per_step, int(sampler["group_size"])
    limit = sampler.get("max_new_tokens")
    longest = int(limit) if limit else round(lengths.mean_completion)
    costs = [tokens + group * int(limit or 0) for tokens in lengths.largest(prompts, with_completions=not limit)]
    fitting, micro_batches = _micro_batches(
        costs[: -(-prompts // trainer.minibatches)],
        lengths.longest_prompt,
        int(limit) if limit else lengths.longest_completion,
        group,
        trainer.micro_batch_tokens,
        pairs=pairs,
    )
    updates_per_step = trainer.passes_per_rollout * trainer.minibatches
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
        tokens_per_step=sum(costs),
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


def _micro_batches(
    costs: Sequence[int], prompt: int, completion: int, group: int, budget: int, *, pairs: bool
) -> tuple[int, int]:
    """(tokens of the largest, how many), both at most, of one update of groups of such costs, the largest first, split as
    batching.micro_batches does. `prompt`, `completion`: the longest.

    A micro-batch may be filled to the budget whatever the costs, as completions may end early. Only a completion that is
    over it alone, or completions that are paired, exceed it.
    """
    together = group if pairs else 1
    largest = max(min(budget, sum(costs)), min(costs[0], prompt + together * completion))
    at_once = max(together, (budget - prompt) // max(completion, 1))
    pieces = [1 if cost <= budget else -(-group // at_once) for cost in costs]
    # Two that follow each other are over the budget together, or they would be one.
    computed = sum(costs) + (sum(pieces) - len(pieces)) * prompt
    bounds = [sum(pieces), 2 * -(-computed // budget) - 1]
    if costs[0] <= budget:
        bounds.append(-(-len(costs) // (budget // costs[0])))
    return largest, min(bounds)


def _due(every: int | None, steps: int) -> tuple[int, ...]:
    """Every so many steps, and after the last."""
    return tuple(sorted({*(range(every, steps + 1, every) if every else ()), steps}))
