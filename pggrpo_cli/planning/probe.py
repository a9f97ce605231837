"""How long a run will take, from two small steps of it: the run's own code, on its own prompts, in a folder that goes."""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pggrpo_cli.assemble import opened_run
from pggrpo_cli.config import TrainConfig
from pggrpo_cli.errors import Unavailable
from pggrpo_cli.interruption import Abandoned, interruptible
from pggrpo_cli.planning.run_counts import RunCounts
from pggrpo_cli.planning.run_plan import RunPlan

PROBED_TOKENS = 2048
"""About so many tokens, at most, has a step of the probe, but a whole group."""
WRITTEN_A_SECOND = 300e6
"""Bytes of a checkpoint, hashed and flushed to the disk: taken, not measured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Probed:
    """What one small step was and took, in seconds."""

    prompts: int
    rollout: float
    score: float
    update: float
    optimizer: float
    """Of the update, what does not grow with the tokens."""
    mean_length: float
    longest: float
    loading: float
    """Until the first step: model, data, self-check."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeEstimate:
    """In seconds. `low`: more prompts cost a rollout little; `high`: they cost in proportion, and every completion is as
    long as it may be."""

    probed: Probed
    step: float
    step_low: float
    step_high: float
    evaluation: float
    """One of them."""
    checkpoint: float
    run: float
    run_low: float
    run_high: float
    max_new_tokens: int | None

    def values(self) -> dict[str, Any]:
        return asdict(self)

    def rows(self) -> dict[str, str]:
        probed = self.probed
        length = f"{probed.mean_length:.0f} tokens a completion, the longest {probed.longest:.0f}"
        rows = {
            "loading": f"{_clock(probed.loading)} for model, data and self-check",
            "a step": _range(self.step, self.step_low, self.step_high),
            "an evaluation": _clock(self.evaluation),
            "a checkpoint": f"{_clock(self.checkpoint)}, not measured: {WRITTEN_A_SECOND / 1e6:.0f} MB a second",
            "the run": _range(self.run, self.run_low, self.run_high),
            "probed": f"a step of {probed.prompts} prompts, {length}; completions without advantage are computed too",
        }
        return {name: words for name, words in rows.items() if self.evaluation or name != "an evaluation"}


def probe(config: TrainConfig, plan: RunPlan) -> TimeEstimate:
    """Loads the model. Raises PggrpoError as the run would. A signal leaves no folder behind."""
    counts = plan.counts
    cost = max(1, round(plan.lengths.mean_prompt) + counts.group_size * counts.completion_tokens)
    prompts = min(counts.prompts_per_step, max(1, PROBED_TOKENS // cost))
    # Two steps of a few prompts may meet no reward at all: an update that skips them would seem to cost nothing.
    trainer_settings = replace(config.trainer, prompts_per_step=prompts, skip_zero_advantages=False)
    quiet = replace(config, logger={}, evaluation=replace(config.evaluation, every=None))
    began = time.monotonic()
    with interruptible() as interruption, tempfile.TemporaryDirectory(prefix="pggrpo-plan-") as folder:
        run = opened_run(quiet, Path(folder), None, interruption, lambda computes: [], saves=False)
        with run as trainer:
            loading = time.monotonic() - began
            trainer.settings = trainer_settings
            try:
                trainer.one_step(1)  # the first one pays for memory that is touched for the first time
                metrics = trainer.one_step(2)
            except Abandoned as stop:  # a server that scores went away; a signal ends the probe otherwise
                raise Unavailable(*stop.args) from None
    probed = Probed(
        prompts=prompts,
        rollout=metrics["time/rollout"],
        score=metrics["time/score"],
        update=metrics["time/update"],
        optimizer=metrics.get("time/optimizer", 0.0),
        mean_length=metrics["completions/mean_length"],
        longest=metrics["completions/max_length"],
        loading=loading,
    )
    return extrapolated(probed, counts, plan.disk.checkpoint)


def extrapolated(probed: Probed, counts: RunCounts, checkpoint_bytes: int) -> TimeEstimate:
    """To a whole step, in proportion to its prompts, and to the whole run.

    A rollout's steps read the weights whatever the number of rows: its time grows by less than the rows, by nothing at
    the least. The optimizer's part of an update is the same for any number of prompts.
    """
    more = counts.prompts_per_step / probed.prompts
    longer = counts.completion_tokens / max(probed.mean_length, 1) if counts.samples else 1.0
    longest = counts.completion_tokens / max(probed.longest, 1) if counts.samples else 1.0
    computed = (probed.update - probed.optimizer) * more
    low = probed.rollout + probed.score * more + computed + probed.optimizer
    usual = low + probed.rollout * (more - 1) / 2
    high = (
        probed.rollout * more * max(1.0, longest) + probed.score * more + computed * max(1.0, longer) + probed.optimizer
    )
    rows = counts.evaluated_prompts / (probed.prompts * counts.group_size)
    lengths = counts.evaluation_tokens / max(probed.longest, 1) if counts.samples else 1.0
    if probed.longest < counts.completion_tokens:  # all ended by themselves, and more room makes none longer
        lengths = min(1.0, lengths)
    evaluation = probed.rollout * lengths * (1 + max(rows, 0.5)) / 2 if counts.evaluations else 0.0
    written = checkpoint_bytes / WRITTEN_A_SECOND
    beside = probed.loading + len(counts.evaluations) * evaluation + counts.written * written
    return TimeEstimate(
        probed=probed,
        step=usual,
        step_low=low,
        step_high=high,
        evaluation=evaluation,
        checkpoint=written,
        run=counts.steps * usual + beside,
        run_low=counts.steps * low + beside,
        run_high=counts.steps * high + beside,
        max_new_tokens=counts.completion_tokens if counts.samples else None,
    )


def _range(usual: float, low: float, high: float) -> str:
    ends = [_clock(low), _clock(high)]
    return f"about {_clock(usual)}" + (f" ({ends[0]} to {ends[1]})" if ends[0] != ends[1] else "")


def _clock(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
