"""Optuna within a sweep: what it takes for an error and is none, and what it says by itself."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

from omegaconf import OmegaConf

from pggrpo_cli.printable import printable
from pggrpo_cli.sweep.job import JobFailed
from pggrpo_cli.warn import warn

PLUGIN = "hydra_plugins.hydra_optuna_sweeper"
RESULTS = "optimization_results.yaml"
"""The plugin's name for it."""


@contextmanager
def at_home(sweeper: str, folder: Path) -> Iterator[None]:
    """Within, the search of the class `sweeper` in `folder` ends as ours do, and speaks as we do; other sweepers are left alone.
    Raises JobFailed where no trial came to a value, and of a job that failed where the sweeper bears no more."""
    if not sweeper.startswith(f"{PLUGIN}."):
        yield
        return
    with _asked_and_told(), _grids_in_one_order(), _in_our_words(), _best_is_written(folder):
        try:
            yield
        except ValueError as error:
            if "No trials are completed" not in str(error):  # of Study.best_trial
                raise
            raise JobFailed("no trial came to a value") from error


@contextmanager
def _asked_and_told() -> Iterator[None]:
    """The plugin asks for trials and tells their values, which is no loop that could be stopped. GridSampler tries to at the end
    of its grid, and Study.stop raises there; the plugin expects that of a trial that has a value, but not of one that failed."""
    from optuna.study import Study

    former = Study.stop
    Study.stop = lambda study: None
    try:
        yield
    finally:
        Study.stop = former


@contextmanager
def _grids_in_one_order() -> Iterator[None]:
    """GridSampler draws its next point from Python's own numbers and takes no seed: a search that goes on would meet its jobs
    in another order, take them for others, and run them again in new folders."""
    from optuna.samplers import _grid

    former = _grid.random
    _grid.random = Random(0)
    try:
        yield
    finally:
        _grid.random = former


@contextmanager
def _best_is_written(folder: Path) -> Iterator[None]:
    """The plugin writes the best trial when all are done. A search that a failed job ends has one as well, and the failed job
    may have been its last."""
    import optuna

    former, studies = optuna.create_study, list[Any]()

    def create_study(**given: Any) -> Any:
        studies.append(former(**given))
        return studies[-1]

    optuna.create_study = create_study
    try:
        yield
    except JobFailed:
        for study in studies:
            if any(trial.state is optuna.trial.TrialState.COMPLETE for trial in study.trials):
                best = {"name": "optuna", "best_params": study.best_trial.params, "best_value": study.best_trial.value}
                OmegaConf.save(OmegaConf.create(best), folder / RESULTS)
        raise
    finally:
        optuna.create_study = former


@contextmanager
def _in_our_words() -> Iterator[None]:
    """What Optuna logs, as our own lines. What the plugin does (which trials failed) the launcher has told already: it is logged
    only where Hydra's logging is configured to go somewhere."""
    from optuna import logging as optunas

    lines, none = _Lines(), logging.NullHandler()
    optunas.disable_default_handler()
    logging.getLogger("optuna").addHandler(lines)
    logging.getLogger(PLUGIN).addHandler(none)
    try:
        yield
    finally:
        logging.getLogger(PLUGIN).removeHandler(none)
        logging.getLogger("optuna").removeHandler(lines)
        optunas.enable_default_handler()


class _Lines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        said = " ".join(record.getMessage().split())
        if record.levelno >= logging.WARNING:
            warn(f"Optuna: {said}")
        elif "created in memory" not in said:  # of every search that keeps nothing
            print(f"Optuna: {printable(said)}", file=sys.stderr, flush=True)
