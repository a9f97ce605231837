"""Metrics for TensorBoard, below the run's own directory: tensorboard --logdir outputs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pggrpo_cli.ranges import Range
from pggrpo_cli.tracking.packages import not_installed
from pggrpo_cli.warn import warn

if TYPE_CHECKING:
    from pathlib import Path

    from pggrpo_cli.protocols import OpenLogger
    from pggrpo_cli.types import RunContext


@dataclass(frozen=True, kw_only=True)
class TensorBoard:
    """One scalar a metric, by the metric's own name. Raises ConfigError if tensorboard is not installed."""

    flush_seconds: Annotated[int, Range(ge=1)]

    @contextmanager
    def open(self, context: RunContext) -> Iterator[OpenLogger]:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise not_installed("tensorboard", extra="tensorboard", name="tensorboard") from error
        logger = _OpenTensorBoard(SummaryWriter, context.run_dir / "tensorboard", self.flush_seconds, context.resumed)
        try:
            yield logger
        finally:
            logger.close()


class _OpenTensorBoard:
    def __init__(self, writer_class: Any, folder: Path, flush_seconds: int, resumed: bool) -> None:
        self._writer_class = writer_class
        self._folder = folder
        self._flush_seconds = flush_seconds
        self._resumed = resumed
        self._writer: Any = None
        self._failed = False

    def log(self, step: int, metrics: dict[str, float | None]) -> None:
        if self._failed:
            return
        try:
            if self._writer is None:
                if not self._resumed:
                    self._forget()
                # Steps that were logged before the interruption are hidden, not doubled, also in a TensorBoard that watches.
                purge_step = step if self._resumed else 0
                self._writer = self._writer_class(
                    str(self._folder), flush_secs=self._flush_seconds, purge_step=purge_step
                )
            for name, value in metrics.items():
                if value is not None:
                    self._writer.add_scalar(name, value, step)
        except OSError as error:
            self._failed = True
            warn(f"tensorboard: {self._folder} cannot be written ({error}); training goes on without it")

    def _forget(self) -> None:
        """What a run that left no checkpoint has logged, as another one begins anew in its directory. Emptied, not deleted: a
        TensorBoard that watches would wait for the end of a file that is gone."""
        for file in self._folder.glob("events.out.tfevents.*"):
            os.truncate(file, 0)

    def close(self) -> None:
        if self._writer is not None:
            with suppress(OSError):
                self._writer.close()
