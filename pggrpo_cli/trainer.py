"""The loop: roll out, score, update; evaluate, log and save in between."""

from __future__ import annotations

import hashlib
import math
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from pggrpo_cli.bad_batches import write_bad_batch
from pggrpo_cli.batching import Minibatch, split_into_minibatches
from pggrpo_cli.config import TrainerSettings
from pggrpo_cli.errors import CheckpointError, StoppedEarly, TimeIsUp, Unavailable
from pggrpo_cli.evaluation import Evaluation
from pggrpo_cli.interruption import Abandoned, Interruption
from pggrpo_cli.loggers import Loggers
from pggrpo_cli.memory import peak_memory_gb
from pggrpo_cli.metrics import Metric, merge, values
from pggrpo_cli.policy import Policy
from pggrpo_cli.progress import Progress
from pggrpo_cli.protocols import Advantage, Loss, OpenOrder, OpenSampler, Pairing
from pggrpo_cli.recorder import Recorder, finite
from pggrpo_cli.rollouts import (
    is_worth_training,
    rollout_metrics,
    score_groups,
    scored_meanwhile,
    train_groups,
    why_nothing_trains,
)
from pggrpo_cli.run_directory import shown
from pggrpo_cli.saving import Saver
from pggrpo_cli.scoring.scorer import Scorer
from pggrpo_cli.suggestions import did_you_mean
from pggrpo_cli.types import DrawKey, Prompt, ScoredGroup
from pggrpo_cli.update import Updater

SIGNAL, TIME_IS_UP = "a signal asked to stop", "trainer.max_minutes are over"
"""Reasons to stop that leave a run to be resumed."""
DONE = "done"


@dataclass(kw_only=True)
class Trainer:
    """One run. Built by assemble.py from the configuration; everything it holds is a protocol of protocols.py or ours."""

    policy: Policy
    prompts: Sequence[Prompt]
    order: OpenOrder
    sampler: OpenSampler
    scorer: Scorer
    advantage: Advantage
    pairing: Pairing
    loss: Loss
    updater: Updater
    evaluation: Evaluation | None
    evaluate_every: int | None
    settings: TrainerSettings
    seed: int
    run_dir: Path
    recorder: Recorder
    loggers: Loggers
    saver: Saver
    interruption: Interruption
    progress: Progress
    saved_step: int | None = None
    """The step of this run's newest checkpoint."""

    def run(self) -> dict[str, float]:
        """Trains to the end or to target_reward; the last known metrics. Raises StoppedEarly on a signal (a rollout is
        abandoned, an update finished), when a server that scores is down or when max_minutes, counted from here, are
        over; then everything is saved."""
        last = self._last_known()
        if self._target_was_met():
            self.loggers.message(
                f"trainer.target_reward was reached at step {self.progress.step}: {self.progress.target_met:.3f} ≥ "
                f"{self.settings.target_reward}. To go on, raise it or give trainer.target_reward=null."
            )
            return last
        started = time.monotonic()
        before = self.progress.seconds
        self.interruption.on_first = self._say_stopping
        if self.evaluation is not None and not self.progress.evaluated:
            try:
                last = self._evaluate(0)
            except (Abandoned, Unavailable) as stop:
                self.saver.save(self.progress)
                raise StoppedEarly(_because(stop, "stopped before the first step; everything is saved.")) from None
            self._record(0, last)
            self._warn_of_unknown_best(last, "eval/")
            self.progress.evaluated = True
            if self.interruption.signal is not None:
                self.saver.save(self.progress)
                raise StoppedEarly("stopped before the first step; everything is saved.")
        while self.progress.unevaluated or self.progress.step < self.settings.max_steps:
            step = self.progress.step + (not self.progress.unevaluated)
            try:
                metrics = self._trained(step)
            except Abandoned as stop:
                self.progress.seconds = before + time.monotonic() - started
                if self.saved_step != self.progress.step:  # else all that is worth saving is on the disk
                    self.saver.save(self.progress)
                where = f"in the rollout of step {step} of {self.settings.max_steps}"
                words = f"stopped {where}, which will be done again; everything before it is saved."
                raise StoppedEarly(_because(stop, words)) from None
            self.progress.step = step
            self.progress.seconds = before + time.monotonic() - started
            metrics |= self._evaluation_behind(step, metrics)
            last |= metrics
            session = time.monotonic() - started
            self.progress.seconds = before + session
            reason = self._reason_to_stop(step, metrics, session)
            self._record(step, metrics)
            if reason is not None and reason not in (DONE, SIGNAL, TIME_IS_UP):
                self.progress.target_met = self._reward(metrics)
            self._save_if_due(metrics, final=reason is not None)
            if step == 1:
                self._warn_of_unknown_best(metrics, "")
            if reason in (SIGNAL, TIME_IS_UP):
                words = f"stopped after step {step} of {self.settings.max_steps}; everything is saved."
                raise StoppedEarly(words) if reason == SIGNAL else TimeIsUp(f"{TIME_IS_UP}: {words}", last)
            if reason is not None:
                self.loggers.message(reason)
                break
        return last

    def _last_known(self) -> dict[str, float]:
        """The newest value of every metric of a run that goes on."""
        known: dict[str, float] = {}
        for _, metrics in self.recorder.history():
            known |= {name: value for name, value in metrics.items() if value is not None}
        return known

    def _target_was_met(self) -> bool:
        """Whether this run had ended, and was killed before it could say so."""
        target, met = self.settings.target_reward, self.progress.target_met
        return target is not None and met is not None and met >= target

    def _reward(self, metrics: dict[str, float]) -> float | None:
        return metrics.get("eval/reward") if self.evaluation is not None else metrics.get("reward")

    def _save_if_due(self, metrics: dict[str, float], *, final: bool) -> None:
        """A checkpoint that cannot be written ends the run only if it is the last one: the next may find room."""
        best = self.progress.best
        if not self.saver.due(self.progress, metrics, final=final):
            return
        with self._phase("checkpoint", {}):
            try:
                self.saver.save(self.progress)
                self.saved_step = self.progress.step
            except CheckpointError as error:
                if final:
                    raise
                self.progress.best = best
                self.loggers.message(f"warning: {error} Training goes on; the next checkpoint is tried when it is due.")

    def _trained(self, step: int) -> dict[str, float]:
        """The metrics of the next step; of the last one, where only its evaluation is still to be done."""
        known = self.progress.unevaluated
        if not known:
            return self.one_step(step)
        self.progress.unevaluated = {}
        self.saved_step = None  # the checkpoint is of the step before its evaluation
        return {name: math.nan if value is None else value for name, value in known.items()}

    def _evaluation_behind(self, step: int, metrics: dict[str, float]) -> dict[str, float]:
        """If it is due. Where a server that scores is down, `metrics`, which share a line with those of the evaluation,
        wait for them in the checkpoint."""
        try:
            return self._evaluate(step) if self._evaluation_due(step) else {}
        except Unavailable as stop:
            self.progress.unevaluated = finite(metrics)
            self.saver.save(self.progress)
            where = f"in the evaluation behind step {step} of {self.settings.max_steps}"
            words = f"stopped {where}, which will be done again; everything before it is saved."
            raise StoppedEarly(_because(stop, words)) from None

    def one_step(self, step: int) -> dict[str, float]:
        """One rollout round with all its updates: its metrics."""
        started = time.monotonic()
        self._seed_everything(step)
        times: dict[str, float] = {}
        consumed = self.progress.prompts_consumed
        try:
            with self.interruption.abandonable():
                kept, scored, told = self._rollout(step, times)
        except (Abandoned, Unavailable) as stop:
            self.progress.prompts_consumed = consumed
            raise Abandoned(*stop.args) from None
        self._show_reward_warnings()
        parts: list[dict[str, Metric]] = [*told, rollout_metrics(scored)]
        with self._phase("update", times):
            groups = train_groups(kept, self.loss, self.pairing, mask_truncated=self.settings.mask_truncated)
            generator = torch.Generator().manual_seed(self._derived_seed(step))
            minibatches = split_into_minibatches(
                groups,
                self.settings.minibatches,
                self.settings.micro_batch_tokens,
                generator,
                skip_zero_advantages=self.settings.skip_zero_advantages and not self.loss.needs_zero_advantages,
            )
            if minibatches:
                parts.append(self.updater.update(minibatches, partial(self._keep_bad_batch, step)))
            else:
                self.loggers.message(f"step {step}: nothing to train on: {why_nothing_trains(scored)}")
        parts.append(self.order.learn(scored))
        metrics = values(merge(parts))
        completion_tokens = sum(len(rollout.completion_ids) for group in scored for rollout in group.rollouts)
        self.progress.num_tokens += metrics["num_tokens"]
        metrics["num_tokens"] = self.progress.num_tokens
        metrics["step_time"] = time.monotonic() - started
        metrics["tokens_per_second"] = completion_tokens / metrics["step_time"]
        metrics["memory/peak_gb"] = peak_memory_gb(self.policy.device)
        metrics |= times
        self.recorder.samples(step, scored)
        self._show_sample(scored)
        return metrics

    def _rollout(
        self, step: int, times: dict[str, float]
    ) -> tuple[list[ScoredGroup], list[ScoredGroup], list[dict[str, Metric]]]:
        """(groups to train on, all groups sampled, what scoring told of each round). With filter_constant_groups, groups
        without signal are replaced by further prompts."""
        kept: list[ScoredGroup] = []
        everything: list[ScoredGroup] = []
        told: list[dict[str, Metric]] = []
        taken: list[int] = []
        rounds = self.settings.max_refills + 1 if self.settings.filter_constant_groups else 1
        for _ in range(rounds):
            wanted = self.settings.prompts_per_step - len(kept)
            indices = self.order.rows(wanted, self.progress.prompts_consumed, taken)
            taken += indices
            draws = DrawKey(seed=self.seed, purpose="rollout", step=step, first_ordinal=len(everything))
            prompts, scoring = [self.prompts[index] for index in indices], self.scorer.begin()
            with self._phase("rollout", times):
                groups = self.sampler.sample(self.policy, prompts, draws, scored_meanwhile(scoring, step))
            self.progress.prompts_consumed += wanted
            with self._phase("score", times):
                scored, metrics = score_groups(groups, scoring, self.advantage, step)
            told.append(metrics)
            everything += scored
            if not self.settings.filter_constant_groups:
                kept = scored
                break
            kept += [group for group in scored if is_worth_training(group, self.loss)]
            if len(kept) >= self.settings.prompts_per_step:
                break
        return kept, everything, told

    def _keep_bad_batch(self, step: int, minibatch: Minibatch, loss: float, grad_norm: float) -> None:
        file = write_bad_batch(self.run_dir, step, minibatch, loss, grad_norm)
        where = f"; its batch is in {shown(file)}" if file is not None else ""
        self.loggers.message(f"warning: step {step}: loss {loss}, gradient norm {grad_norm}: not applied{where}")

    def _evaluation_due(self, step: int) -> bool:
        if self.evaluation is None or self.evaluate_every is None:
            return False
        return step % self.evaluate_every == 0 or step == self.settings.max_steps

    def _evaluate(self, step: int) -> dict[str, float]:
        assert self.evaluation is not None
        times: dict[str, float] = {}
        # One within a step comes after the update, and is finished like it.
        abandonable = self.interruption.abandonable() if step == 0 else nullcontext()
        with self._phase("evaluation", times), abandonable:
            metrics, scored = self.evaluation.run(self.policy, step)
        self.recorder.samples(step, scored, held_out=True)
        return metrics | times

    def _reason_to_stop(self, step: int, metrics: dict[str, float], session_seconds: float) -> str | None:
        """Why this step is the last one; None to go on."""
        if step == self.settings.max_steps:
            return DONE
        reward = self._reward(metrics)
        target = self.settings.target_reward
        if target is not None and reward is not None and reward >= target:
            return f"trainer.target_reward reached: {reward:.3f} ≥ {target}"
        if self.interruption.signal is not None:
            return SIGNAL
        limit = self.settings.max_minutes
        if limit is not None and session_seconds >= 60 * limit:
            return TIME_IS_UP
        return None

    def _warn_of_unknown_best(self, metrics: dict[str, float], prefix: str) -> None:
        """checkpoint.keep_best names a metric: of an evaluation (prefix eval/) or of a step (no prefix)."""
        name = (self.saver.settings.keep_best or "").partition(":")[0]
        if name and name.startswith("eval/") == bool(prefix) and name not in metrics:
            self.loggers.message(
                f"warning: `checkpoint.keep_best`: no metric {name} is logged.{did_you_mean(name, metrics)} "
                "No best checkpoint is kept."
            )

    def _say_stopping(self) -> None:
        self.loggers.message("stopping at the next safe place; the same signal again ends at once")

    def _record(self, step: int, metrics: dict[str, float]) -> None:
        self.recorder.metrics(step, metrics)
        self.loggers.log(step, metrics)

    def _show_reward_warnings(self) -> None:
        for words in self.scorer.warnings:
            self.loggers.message(words)
        self.scorer.warnings.clear()

    def _show_sample(self, scored: list[ScoredGroup]) -> None:
        if scored:
            rollout = scored[0].rollouts[0]
            self.loggers.sample(scored[0].prompt.text, rollout.text, scored[0].rewards[0])

    @contextmanager
    def _phase(self, name: str, times: dict[str, float]) -> Iterator[None]:
        self.loggers.phase(name)
        started = time.monotonic()
        yield
        key = f"time/{name}"
        times[key] = times.get(key, 0.0) + time.monotonic() - started

    def _derived_seed(self, step: int) -> int:
        digest = hashlib.blake2b(f"{self.seed}|step|{step}".encode(), digest_size=7).digest()
        return int.from_bytes(digest, "little")

    def _seed_everything(self, step: int) -> None:
        """The global generators are derived at each step, not carried: nothing to save, nothing to restore."""
        seed = self._derived_seed(step)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)


def _because(reason: BaseException, words: str) -> str:
    """A signal has no words of its own."""
    return f"{reason} {words[0].upper()}{words[1:]}" if str(reason) else words
