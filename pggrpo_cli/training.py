"""One run in its directory: where it begins or goes on, locked meanwhile, left as it was if it is refused."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pggrpo_cli import run_directory as runs
from pggrpo_cli.config import TrainConfig, as_dict
from pggrpo_cli.errors import CheckpointError, ConfigError, PggrpoError, RunLockedError, StoppedEarly, UsageError
from pggrpo_cli.interruption import interruptible
from pggrpo_cli.metrics import objective
from pggrpo_cli.saying import saying

if TYPE_CHECKING:
    from omegaconf import DictConfig


def train(
    cfg: DictConfig | Mapping[str, Any] | TrainConfig, run_dir: str | Path | None = None, overrides: Sequence[str] = ()
) -> float | None:
    """One run; the same as `pggrpo train` from Python.

    `cfg` is what hydra_start.compose returns, or a dictionary like it. Without `run_dir` the run lies where Hydra says,
    or by the same pattern in a new directory below outputs/. Returns what a sweeper is told, sweep.metric at the end:
    None if nothing was left to do. Raises PggrpoError, before anything heavy loads where it can.
    """
    config = _checked(cfg)
    if run_dir is not None:
        return _train(config, Path(run_dir), overrides, job=False)
    place, overrides = _place_by_hydra(config.name)
    return _train(config, place, overrides, job=_is_job_of_a_sweep())


def train_job(cfg: Mapping[str, Any], run_dir: Path, overrides: Sequence[str]) -> float | None:
    """A job of a sweep in `run_dir`: goes on from a checkpoint there, and begins anew where there is none; None if nothing
    was left to do. Raises like train."""
    return _train(_checked(cfg), run_dir, overrides, job=True)


def _checked(cfg: DictConfig | Mapping[str, Any] | TrainConfig) -> TrainConfig:
    from pggrpo_cli.check import check_values, checked

    if not isinstance(cfg, (TrainConfig, Mapping)) and type(cfg).__name__ != "DictConfig":
        raise UsageError(f"pggrpo_cli.train: a configuration is needed, not {type(cfg).__name__}; compose() makes one.")
    if isinstance(cfg, TrainConfig):
        check_values(as_dict(cfg))
        return cfg
    return checked(cfg)


def _train(config: TrainConfig, wanted: Path, overrides: Sequence[str], *, job: bool) -> float | None:
    fresh = not wanted.exists() or not any(wanted.iterdir())
    try:
        start = _where_to_start(config, wanted, job=job)
        result = None if start is None else run_in(config, *start, overrides)
    except RunLockedError:
        raise  # the directory is somebody else's
    except (PggrpoError, KeyboardInterrupt, SystemExit):
        if fresh and wanted.exists():
            runs.discard_if_unused(wanted)
        raise
    if start is not None and start[0] != wanted and fresh and wanted.exists():
        runs.discard_if_unused(wanted)
    return result


def run_in(config: TrainConfig, run_dir: Path, resume_from: Path | None, overrides: Sequence[str]) -> float | None:
    """Trains in `run_dir`, locked meanwhile. What is there of a run that goes on is touched only once nothing is left that
    could be refused: a refused resume leaves it as it was."""
    with interruptible(config.trainer.preemption_signal) as interruption, runs.locked(run_dir):
        with saying("loading torch …"):
            from pggrpo_cli.assemble import find_checkpoint, run_training
            from pggrpo_cli.environment import save_environment
            from pggrpo_cli.tracking.identity import forget
        checkpoint = None if resume_from is None else find_checkpoint(resume_from)
        if resume_from != run_dir:
            with runs.writable(run_dir):
                runs.start_anew(run_dir)
                forget(run_dir)
                runs.save_config(run_dir, as_dict(config))
                runs.save_overrides(run_dir, overrides)

        def begin(computes: str) -> list[str]:
            """Everything is accepted: from here on the directory says what runs in it. Returns what is to be said."""
            with runs.writable(run_dir):
                runs.save_config(run_dir, as_dict(config))
                changes = save_environment(run_dir / runs.ENVIRONMENT, computes)
                (run_dir / runs.FINISHED).unlink(missing_ok=True)
            if not changes:
                return []
            return [f"not the environment of the last session ({'; '.join(changes)}): the same run, but not to the bit"]

        result = objective(run_training(config, run_dir, checkpoint, interruption, begin), config.sweep.metric)
        if interruption.signal is not None and _is_job_of_a_sweep():
            raise StoppedEarly("stopped after the last step of a job, which is done.")
        return result


def _is_job_of_a_sweep() -> bool:
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def _place_by_hydra(name: str) -> tuple[Path, Sequence[str]]:
    """Run directory and overrides."""
    from hydra.core.hydra_config import HydraConfig

    from pggrpo_cli.sweep.jobs import typed_words

    if not HydraConfig.initialized():
        return runs.new_run_dir(name), ()
    hydra = HydraConfig.get()
    return Path(hydra.runtime.output_dir), typed_words(hydra)


def _where_to_start(config: TrainConfig, run_dir: Path, *, job: bool) -> tuple[Path, Path | None] | None:
    """The directory to train in and the run or checkpoint to go on from (resume.from); None: the run is done. A job of a sweep
    goes on in its own directory, whatever resume.from says."""
    wish, values = config.resume.from_, as_dict(config)
    metrics = run_dir / runs.METRICS
    holds_run = runs.has_checkpoints(run_dir) or (metrics.exists() and metrics.stat().st_size > 0)
    if wish != "auto" and holds_run and not job:
        raise ConfigError(
            f"`hydra.run.dir`: {run_dir} holds a run already. Give another directory, or resume.from=auto to go on."
        )
    if runs.has_checkpoints(run_dir) and (job or wish == "auto"):
        runs.refuse_changes(runs.read_config(run_dir), values, config.resume.allow_changed, run_dir)
        why = "the sweep" if job else "resume.from=auto"
        if runs.nothing_left(run_dir, values):
            print(f"{why}: {run_dir} is finished; nothing is left to do", file=sys.stderr)
            return None
        print(f"{why}: goes on in {run_dir}", file=sys.stderr)
        return run_dir, run_dir
    if wish is None or (wish == "auto" and job):
        return run_dir, None
    if wish != "auto":
        return run_dir, _checked_source(config, Path(wish).expanduser(), values)
    found = runs.newest_unfinished(run_dir, 2, values)
    if found is None:
        print("resume.from=auto: no unfinished run has this configuration; a new one starts", file=sys.stderr)
        return run_dir, None
    print(f"resume.from=auto: goes on in {found}", file=sys.stderr)
    return found, found


def _checked_source(config: TrainConfig, source: Path, values: Mapping[str, Any]) -> Path:
    """The run or checkpoint that resume.from names: a new run starts from it, with a configuration that fits."""
    is_checkpoint = (source / "manifest.json").exists()
    run = source.absolute().parents[1] if is_checkpoint else source
    if not is_checkpoint and not runs.has_checkpoints(source):
        what = "is no folder" if not source.is_dir() else "holds no complete checkpoint"
        raise CheckpointError(f"`resume.from`: {source} {what}. Give the directory of a run or of one checkpoint.")
    runs.refuse_changes(runs.read_config(run), values, ["name", *config.resume.allow_changed], run)
    return source
