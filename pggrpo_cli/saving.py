"""What a checkpoint of a run holds, when one is due, and how a run is put back from it."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from pggrpo_cli.checkpoint import (
    Checkpoint,
    clean_leftovers,
    leftover_bytes,
    newest_step_folder,
    purge,
    save_checkpoint,
)
from pggrpo_cli.config import CheckpointSettings
from pggrpo_cli.errors import CheckpointError, ConfigError, DivergedError
from pggrpo_cli.optimizer_state import load_optimizer_state, optimizer_state
from pggrpo_cli.policy import Policy
from pggrpo_cli.progress import Progress
from pggrpo_cli.protocols import Stateful
from pggrpo_cli.update import Updater
from pggrpo_cli.warn import warn

WEIGHTS = "model.safetensors"
OPTIMIZER_COPIES = 2
"""Tensors as large as the weights that Adam keeps; others keep fewer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Saver:
    """Saves the policy as a from_pretrained folder, the optimizer by parameter name, and the state of every open object
    that has one."""

    folder: Path
    settings: CheckpointSettings
    policy: Policy
    updater: Updater
    stateful: Mapping[str, Stateful]
    keep_as_built: frozenset[str] = frozenset()
    """Keys of the optimizer that resume.allow_changed covers: theirs are the new values."""

    def due(self, progress: Progress, metrics: Mapping[str, float], *, final: bool) -> bool:
        """At the end, every `every` steps, and whenever an evaluation is the best so far. Notes the best."""
        periodic = self.settings.every is not None and progress.step % self.settings.every == 0
        if self._is_best(progress, metrics, saved_anyway=final or periodic):
            name, _ = self._best_metric()
            progress.best = {"step": progress.step, "value": metrics[name]}
            return True
        return final or periodic

    def foresee(self) -> None:
        """Before the first step: raises ConfigError if not even the weights of one checkpoint fit on the disk, warns if
        the optimizer's state, or one checkpoint beside the one it replaces, may not."""
        weights = sum(parameter.numel() * parameter.element_size() for parameter in self.policy.module.parameters())
        free = shutil.disk_usage(self.folder.parent).free + leftover_bytes(self.folder)
        if free < weights:
            raise ConfigError(
                f"`checkpoint`: {free / 1e9:.2f} GB are free in {self.folder.parent}, and the weights alone take "
                f"{weights / 1e9:.2f} GB. Free some, or give another hydra.run.dir."
            )
        whole = weights * (1 + OPTIMIZER_COPIES)
        wanted = (min(self.settings.keep_last, 2) + (self.settings.keep_best is not None)) * whole
        if free < wanted:
            warn(
                f"`checkpoint`: {free / 1e9:.2f} GB are free in {self.folder.parent}; a checkpoint of this model takes up "
                f"to {whole / 1e9:.2f} GB, and {wanted / 1e9:.2f} GB may be needed"
            )

    def save(self, progress: Progress) -> Path:
        """Raises DivergedError if the weights are not finite: such a checkpoint would only push a good one out."""
        if not all(bool(torch.isfinite(parameter).all()) for parameter in self.policy.module.parameters()):
            raise DivergedError(
                f"`optimizer.lr`: the weights after step {progress.step} are not finite; they are not saved. Try a smaller "
                "optimizer.lr or trainer.max_grad_norm."
            )
        tensors, groups = optimizer_state(self.updater.optimizer, self.policy.module.named_parameters())
        path = save_checkpoint(
            self.folder,
            progress.step,
            export=self._export,
            optimizer_tensors=tensors,
            component_states={name: component.state() for name, component in self.stateful.items()},
            progress={**asdict(progress), "optimizer": groups},
        )
        best = progress.best.get("step")
        if self.updater.going_well:  # else these weights may be the ruined ones, and those before them the last good
            purge(self.folder, self.settings.keep_last, None if best is None else int(best))
        return path

    def restore(self, checkpoint: Checkpoint) -> dict[str, object]:
        """Weights, optimizer and components as they were; the loop's progress is returned."""
        load_weights(self.policy.module, checkpoint.path / WEIGHTS)
        progress = dict(checkpoint.progress)
        groups = progress.pop("optimizer")
        load_optimizer_state(
            self.updater.optimizer,
            self.policy.module.named_parameters(),
            checkpoint.optimizer_tensors,
            groups,
            keep=self.keep_as_built,
        )
        for name, component in self.stateful.items():
            component.load(checkpoint.component_states.get(name, {}))
        best = progress.get("best") or {}
        if checkpoint.path == newest_step_folder(self.folder):
            # The run may have been killed between saving this one and deleting what it made superfluous.
            clean_leftovers(self.folder)
            if self.updater.going_well:
                purge(self.folder, self.settings.keep_last, int(best["step"]) if best else None)
        if best and not (self.folder / f"step-{int(best['step']):06d}").exists():
            progress["best"] = {}  # of the run that this one started from: its checkpoint is not ours to keep
        return progress

    def _best_metric(self) -> tuple[str, float]:
        name, _, direction = (self.settings.keep_best or "").partition(":")
        return name, -1.0 if direction == "min" else 1.0

    def _is_best(self, progress: Progress, metrics: Mapping[str, float], *, saved_anyway: bool) -> bool:
        """An evaluation's metric is worth a checkpoint of its own; a step's metric only chooses among those there are."""
        name, sign = self._best_metric()
        value = metrics.get(name, math.nan)
        if self.settings.keep_best is None or math.isnan(value):
            return False
        if not (saved_anyway or name.startswith("eval/")):
            return False
        if not progress.best:
            return True
        gain = sign * (value - progress.best["value"])
        return gain > 0 or (gain == 0 and saved_anyway)  # of two that are alike the later one has learned for longer

    def _export(self, folder: Path) -> None:
        self.policy.module.save_pretrained(folder, max_shard_size="1000GB")
        self.policy.tokenizer.save_pretrained(folder)


def load_weights(module: torch.nn.Module, file: Path) -> None:
    """Puts saved weights into `module`, bit for bit. Raises CheckpointError if they are another model's."""
    saved = load_file(file)
    own = module.state_dict()
    wrong = [name for name, tensor in saved.items() if name not in own or own[name].shape != tensor.shape]
    shared = {own[name].data_ptr() for name in saved if name in own}
    missing = [name for name, tensor in own.items() if name not in saved and tensor.data_ptr() not in shared]
    if wrong or missing:
        raise CheckpointError(
            f"{file.parent} holds another model: {', '.join((wrong + missing)[:4])} do not fit. "
            "Resume with the model it was trained from."
        )
    with torch.no_grad():
        for name, tensor in saved.items():
            own[name].copy_(tensor)
