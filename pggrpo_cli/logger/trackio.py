"""Metrics for trackio: on this machine, where `trackio show` finds them, or on a Space of Hugging Face's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pggrpo_cli.ranges import Range
from pggrpo_cli.tracking.packages import require
from pggrpo_cli.tracking.process import SAMPLE_COLUMNS
from pggrpo_cli.tracking.tracker import tracked

if TYPE_CHECKING:
    from pggrpo_cli.protocols import OpenLogger
    from pggrpo_cli.types import RunContext


@dataclass(frozen=True, kw_only=True)
class Trackio:
    """Each metric by its own name and step. Raises ConfigError if trackio is not installed."""

    project: str
    space_id: str | None
    sample_every: Annotated[int | None, Range(ge=1)]
    close_seconds: Annotated[float, Range(gt=0)]

    @contextmanager
    def open(self, context: RunContext) -> Iterator[OpenLogger]:
        require("trackio", extra="trackio", name="trackio")
        settings = {"project": self.project, "space_id": self.space_id}
        with tracked(
            "trackio", settings, context, sample_every=self.sample_every, close_seconds=self.close_seconds
        ) as tracker:
            yield tracker


class Session:
    """In the tracker's own process. trackio knows a run by its name, so our id is a part of it."""

    def __init__(self, settings: Mapping[str, Any], run: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        import trackio

        self._trackio = trackio
        name = str(run["name"]).replace("/", "-")
        self._run = trackio.init(
            project=settings["project"],
            name=f"{name}-{run['id'][:6]}",
            group=run["group"],
            space_id=settings["space_id"],
            config=dict(config),
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        self.words = f'shown by: trackio show --project "{settings["project"]}"' if settings["space_id"] is None else ""

    def log(self, step: int, metrics: dict[str, float], samples: list[list[Any]]) -> None:
        row: dict[str, Any] = dict(metrics)
        if samples:
            row["samples"] = self._trackio.Table(data=[dict(zip(SAMPLE_COLUMNS, one, strict=True)) for one in samples])
        self._run.log(row, step=step)

    def close(self, status: str) -> None:
        self._run.finish()
