"""From the configuration to a run: the only place that instantiates components."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers

from pggrpo_cli.check import check_foreign_targets
from pggrpo_cli.checkpoint import load_checkpoint, newest_checkpoint
from pggrpo_cli.config import TrainConfig
from pggrpo_cli.devices import prepare_device, resolve_device
from pggrpo_cli.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    DivergedError,
    StoppedEarly,
    UserCodeError,
)
from pggrpo_cli.evaluation import Evaluation
from pggrpo_cli.filters import Sieve
from pggrpo_cli.instantiate import blamed, component, components
from pggrpo_cli.interruption import Interruption
from pggrpo_cli.loading import held_out_sampler, load_policy, render
from pggrpo_cli.loggers import Loggers, open_loggers
from pggrpo_cli.memory import resident_bytes
from pggrpo_cli.model_files import reward_model_files
from pggrpo_cli.origin import model_digest, prompts_digest, refuse_other_origin
from pggrpo_cli.parts import some_of_each_part
from pggrpo_cli.planning.memory_facts import estimate_memory
from pggrpo_cli.planning.plan import about_data, describe, describe_parts, unused_labels
from pggrpo_cli.planning.run_counts import lengths_of, run_counts
from pggrpo_cli.policy import Policy, resolve_compute_dtype
from pggrpo_cli.progress import Progress
from pggrpo_cli.prompts import RenderedPrompts, format_of
from pggrpo_cli.protocols import Stateful
from pggrpo_cli.recorder import Recorder
from pggrpo_cli.reference import Reference, frozen, frozen_copy
from pggrpo_cli.row_loading import load_rows
from pggrpo_cli.run_directory import has_checkpoints, resume_command, save_finished, shown
from pggrpo_cli.saving import Saver
from pggrpo_cli.scoring.scorer import Scorer, open_scorer
from pggrpo_cli.self_check import check_policy
from pggrpo_cli.together import check_together
from pggrpo_cli.trainer import Trainer
from pggrpo_cli.types import Dataset, RewardContext, RunContext
from pggrpo_cli.update import Updater, UpdateSettings
from pggrpo_cli.weights import load_model


def run_training(
    config: TrainConfig,
    run_dir: Path,
    checkpoint: Path | None,
    interruption: Interruption,
    begin: Callable[[str], list[str]] = lambda computes: [],
) -> dict[str, float]:
    """One run from its checked configuration to its last metrics. `checkpoint`: the folder to go on from.

    `begin` is called before the first step, once everything is accepted, with the dtype of products and their device;
    it returns lines to be shown.
    """
    with opened_run(config, run_dir, checkpoint, interruption, begin) as trainer:
        try:
            metrics = trainer.run()
        except (StoppedEarly, UserCodeError, DataError) as stop:
            if not has_checkpoints(run_dir):
                raise
            stop.args = (f"{stop} Go on with: {resume_command(config, run_dir)}",)
            raise
        except DivergedError as error:
            error.args = (f"{error} {_way_back(run_dir)}",)
            raise
        save_finished(run_dir, trainer.progress.step)
        trainer.loggers.message(_closing_words(trainer, run_dir))
        return metrics


@contextmanager
def opened_run(
    config: TrainConfig,
    run_dir: Path,
    checkpoint: Path | None,
    interruption: Interruption,
    begin: Callable[[str], list[str]],
    *,
    saves: bool = True,
) -> Iterator[Trainer]:
    """A run that is ready for its first step; see run_training. `saves`: whether it will write checkpoints."""
    device = resolve_device(config.device)
    prepare_device(device)
    transformers.utils.logging.disable_progress_bar()  # it would tear the display
    check_foreign_targets(config)
    loss, sampler = component(config.loss, "loss"), component(config.sampler, "sampler")
    rows, sieve = load_rows(config)
    check_together(config, loss, sampler, rows)
    base = resident_bytes()
    prompt_format = format_of(config.data)
    context = RunContext(
        run_dir=run_dir, device=device, seed=config.seed, run_id=run_dir.name, resumed=checkpoint is not None
    )
    with ExitStack() as stack:
        for_rewards = RewardContext(run_dir=run_dir, device=str(device), seed=config.seed)
        scorer = stack.enter_context(open_scorer(config, for_rewards))
        scorer.dry_run(some_of_each_part(rows.train or rows.evaluation, 4), prompt_format)
        loggers = stack.enter_context(open_loggers(components(config.logger, "logger"), context))
        loggers.phase("loading model")
        build = _Build(config, context, loss, sampler, scorer, rows, sieve, loggers, base, saves, stack)
        yield build.trainer(interruption, checkpoint, begin)


def _way_back(run_dir: Path) -> str:
    """For a run whose weights are ruined: the newest checkpoints may hold them already."""
    kept = sorted(path.parent for path in (run_dir / "checkpoints").glob("step-*/manifest.json"))
    if not kept:
        return "No checkpoint was saved before it."
    return (
        f"Checkpoints from before: {', '.join(path.name for path in kept)}. To start from one: the same command with "
        f"resume.from={shown(kept[0])}, what you change, and that in resume.allow_changed=[…]."
    )


def find_checkpoint(path: Path) -> Path:
    """`path` itself if it is a checkpoint, else the newest whole one of the run. Raises CheckpointError."""
    if (path / "manifest.json").exists():
        return path
    found = newest_checkpoint(path / "checkpoints")
    if found is None:
        raise CheckpointError(f"{path} holds no complete checkpoint; there is nothing to go on from.")
    return found


def _closing_words(trainer: Trainer, run_dir: Path) -> str:
    best = trainer.progress.best
    words = f"saved in {shown(run_dir)}"
    if best:
        name = (trainer.saver.settings.keep_best or "").partition(":")[0]
        words += f"; best {name} {best['value']:.3f} in checkpoints/step-{int(best['step']):06d}"
    return words


@dataclass(frozen=True, slots=True)
class _Build:
    """The pieces of one run while it is put together."""

    config: TrainConfig
    context: RunContext
    loss: Any
    sampler: Any
    scorer: Scorer
    rows: Dataset
    sieve: Sieve
    loggers: Loggers
    base: int
    """Bytes of the process before the model."""
    saves: bool
    stack: ExitStack

    def trainer(
        self, interruption: Interruption, resume_from: Path | None, begin: Callable[[str], list[str]]
    ) -> Trainer:
        config = self.config
        checkpoint = None if resume_from is None else load_checkpoint(resume_from)
        policy, source = load_policy(config, self.context.device)
        new_tokens = config.sampler.get("max_new_tokens") or 0
        rendered = render(config, policy, self.rows.train, new_tokens, "sampler.max_new_tokens")
        evaluation = self._evaluation(policy)
        origin = {
            "data": prompts_digest(rendered.prompts),
            "model": model_digest(policy.module.named_parameters()),
            **reward_model_files(config.reward),
        }
        if evaluation is not None:
            origin["held-out data"] = prompts_digest(evaluation.prompts)
        reference = self._reference(policy, origin)
        if checkpoint is not None:
            refuse_other_origin(checkpoint.progress.get("origin", {}), origin, config.resume.allow_changed)
        order = component(config.order, "order")
        order = order.begin(rendered.prompts, self.rows.weights, config.seed, identity=origin["data"])
        sampler = self.stack.enter_context(self.sampler.open(self.context))
        updater = self._updater(policy, reference)
        recorder = self.stack.enter_context(Recorder(self.context.run_dir))
        parts = {"updater": updater, "recorder": recorder, "reference": reference, "sampler": sampler, "order": order}
        parts["evaluation"] = None if evaluation is None else evaluation.sampler
        saver = self._saver(policy, updater, parts)
        if self.saves:
            saver.foresee()
        progress = Progress() if checkpoint is None else Progress(**saver.restore(checkpoint))  # type: ignore[arg-type]
        progress.origin = progress.origin | origin
        own = checkpoint is not None and checkpoint.path.parent.absolute() == saver.folder.absolute()
        if not own:
            progress.target_met = None  # that ended the run which this one starts from
        trainer = Trainer(
            policy=policy,
            prompts=rendered.prompts,
            order=order,
            sampler=sampler,
            scorer=self.scorer,
            advantage=component(config.advantage, "advantage"),
            pairing=component(config.pairing, "pairing"),
            loss=self.loss,
            updater=updater,
            evaluation=evaluation,
            evaluate_every=config.evaluation.every,
            settings=config.trainer,
            seed=config.seed,
            run_dir=self.context.run_dir,
            recorder=recorder,
            loggers=self.loggers,
            saver=saver,
            interruption=interruption,
            progress=progress,
            saved_step=progress.step if own else None,
        )
        self._introduce(trainer, rendered, source, begin)
        return trainer

    def _reference(self, policy: Policy, origin: dict[str, str]) -> Reference | None:
        """Before the checkpoint's weights are put into the policy: π_orig is the model before training. Another model's
        digest is added to `origin`."""
        if not self.loss.needs_reference:
            return None
        options = self.config.reference
        device = policy.device if options.device is None else resolve_device(options.device, "reference.device")
        dtype = policy.compute_dtype if options.dtype == "auto" else resolve_compute_dtype(options.dtype, device)
        if options.path is None:
            original = frozen_copy(policy, dtype, device)
        else:
            other = load_model(options.path, None, "reference.path")
            if other.module.config.vocab_size != policy.module.config.vocab_size:
                raise ConfigError(
                    f"`reference.path`: {options.path} has a vocabulary of {other.module.config.vocab_size}, the model "
                    f"one of {policy.module.config.vocab_size}; they must share a tokenizer."
                )
            origin["reference"] = model_digest(other.module.named_parameters())
            original = frozen(Policy(other.module.to(device), policy.tokenizer, dtype))
        weights = origin.get("reference", origin["model"])
        return Reference(original, identity=f"weights {weights} in {dtype}, data {origin['data']}")

    def _updater(self, policy: Policy, reference: Reference | None) -> Updater:
        trainer = self.config.trainer
        factory = component(self.config.optimizer, "optimizer")
        with blamed("optimizer", self.config.optimizer["_target_"]):
            optimizer = factory(list(policy.module.named_parameters()))
        total_updates = trainer.max_steps * trainer.passes_per_rollout * trainer.minibatches
        schedule = component(self.config.scheduler, "scheduler")
        with blamed("scheduler", self.config.scheduler["_target_"]):
            scheduler = schedule(optimizer, total_updates=total_updates)
        settings = UpdateSettings(
            temperature=self.sampler.temperature,
            passes_per_rollout=trainer.passes_per_rollout,
            max_grad_norm=trainer.max_grad_norm,
            importance_cap=trainer.importance_cap,
            max_bad_updates=trainer.max_bad_updates,
            max_new_tokens=self.config.sampler.get("max_new_tokens"),
        )
        return Updater(policy, optimizer, scheduler, self.loss, reference, settings)

    def _saver(self, policy: Policy, updater: Updater, parts: Mapping[str, object]) -> Saver:
        """Of `parts`, those that have a state are saved with it."""
        return Saver(
            folder=self.context.run_dir / "checkpoints",
            settings=self.config.checkpoint,
            policy=policy,
            updater=updater,
            stateful={name: part for name, part in parts.items() if isinstance(part, Stateful)},
            keep_as_built=frozenset(
                name
                for name in self.config.optimizer
                if {"optimizer", f"optimizer.{name}"} & set(self.config.resume.allow_changed)
            ),
        )

    def _evaluation(self, policy: Policy) -> Evaluation | None:
        options = self.config.evaluation
        if options.every is None or not self.rows.evaluation:
            return None
        sampler = held_out_sampler(self.sampler, 1, options.temperature, options.max_new_tokens)
        key = "sampler" if options.max_new_tokens is None else "evaluation"
        held_out = list(self.rows.evaluation[: options.num_prompts])
        rendered = render(self.config, policy, held_out, sampler.max_new_tokens, f"{key}.max_new_tokens")
        return Evaluation(
            prompts=rendered.prompts,
            sampler=self.stack.enter_context(sampler.open(self.context)),
            scorer=self.scorer,
            seed=self.config.seed,
        )

    def _introduce(
        self, trainer: Trainer, rendered: RenderedPrompts, source: str, begin: Callable[[str], list[str]]
    ) -> None:
        """The plan and the self-check, before the first step."""
        config, policy = self.config, trainer.policy
        self.loggers.start(config.trainer.max_steps, config.name)
        for past, metrics in trainer.recorder.history():
            self.loggers.remember(past, metrics)
        precision = str(policy.compute_dtype).removeprefix("torch.")
        parameters = sum(parameter.numel() for parameter in policy.module.parameters()) / 1e6
        size = f"{parameters:.0f}M" if parameters >= 10 else f"{parameters:.2g}M"
        lines = [f"model: {source}, {size} parameters, {precision} on {policy.device}"]
        if not policy.packable:
            lines.append(f"slower: this model goes sequence by sequence ({policy.packable_reason})")
        lines += about_data(self.sieve, rendered)
        lines += self._described(trainer, rendered)
        lines += [*describe_parts(config, self.rows, rendered.prompts), *self.rows.notes]
        lines += [*unused_labels(self.rows, config), *self.scorer.notes]
        if trainer.progress.step:
            lines.append(f"resumed after step {trainer.progress.step}")
        elif config.self_check.enabled:
            lines.append(
                "self-check: "
                + check_policy(
                    policy, trainer.sampler, trainer.prompts, self.sampler.temperature, config.seed, config.self_check
                )
            )
        for line in [*lines, *begin(f"{precision} on {policy.device}")]:
            self.loggers.message(line)

    def _described(self, trainer: Trainer, rendered: RenderedPrompts) -> list[str]:
        lengths = lengths_of(rendered, 0 if trainer.evaluation is None else len(self.rows.evaluation))
        counts = run_counts(self.config, lengths, pairs=self.loss.needs_pairs)
        try:
            memory = estimate_memory(self.config, trainer.policy, self.loss, counts, lengths, self.base)
        except Exception:  # a model that the estimate does not know may train all the same
            memory = None
        return describe(self.config, self.loss, counts, lengths.mean_prompt, memory)
