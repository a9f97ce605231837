"""Metrics for MLflow: in <run directory>/mlflow.db, or where tracking_uri says."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pggrpo_cli.ranges import Range
from pggrpo_cli.tracking.packages import OWN_STORE, require, tracking_uri_of
from pggrpo_cli.tracking.process import SAMPLE_COLUMNS
from pggrpo_cli.tracking.tracker import tracked

if TYPE_CHECKING:
    from pggrpo_cli.protocols import OpenLogger
    from pggrpo_cli.types import RunContext

_NOT_IN_A_NAME = re.compile(r"[^\w\-./ :]")
PARAMS_AT_ONCE, VALUE_CHARACTERS = 100, 500
"""What a server takes."""
STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
PATIENCE = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
"""Unless it is set: a line that fails is tried again here, and MLflow itself would try for minutes."""


@dataclass(frozen=True, kw_only=True)
class Mlflow:
    """Each metric by its own name and step. Raises ConfigError if mlflow, or what its own store needs, is not installed."""

    experiment: str
    tracking_uri: str | None
    sample_every: Annotated[int | None, Range(ge=1)]
    close_seconds: Annotated[float, Range(gt=0)]

    @contextmanager
    def open(self, context: RunContext) -> Iterator[OpenLogger]:
        uri = tracking_uri_of(self.tracking_uri)
        require("mlflow", *(OWN_STORE if uri is None else ()), extra="mlflow", name="mlflow")
        settings = {"experiment": self.experiment, "tracking_uri": uri}
        with tracked(
            "mlflow", settings, context, sample_every=self.sample_every, close_seconds=self.close_seconds
        ) as tracker:
            yield tracker


class Session:
    """In the tracker's own process. MLflow gives runs their ids, so ours is a tag by which the run is found again."""

    def __init__(self, settings: Mapping[str, Any], run: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        folder = Path(run["folder"])
        own = settings["tracking_uri"] is None
        self._client = MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db" if own else settings["tracking_uri"])
        experiment = self._experiment(settings["experiment"], (folder / "mlflow").as_uri() if own else None)
        found = self._client.search_runs([experiment], f"tags.`pggrpo.id` = '{run['id']}'", max_results=1)
        if found:
            self._id = found[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
        else:
            tags = {"pggrpo.id": run["id"], **({"pggrpo.sweep": run["group"]} if run["group"] else {})}
            self._id = self._client.create_run(experiment, run_name=run["name"], tags=tags).info.run_id
            params = [Param(key, value[:VALUE_CHARACTERS]) for key, value in flat(config).items()]
            for start in range(0, len(params), PARAMS_AT_ONCE):
                self._client.log_batch(self._id, params=params[start : start + PARAMS_AT_ONCE])
        self.words = ""

    def _experiment(self, name: str, artifacts: str | None) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        return str(self._client.create_experiment(name, artifact_location=artifacts))

    def log(self, step: int, metrics: dict[str, float], samples: list[list[Any]]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        rows = [Metric(_NOT_IN_A_NAME.sub("_", name), value, now, step) for name, value in metrics.items()]
        self._client.log_batch(self._id, metrics=rows)
        if samples:
            table = {"columns": list(SAMPLE_COLUMNS), "data": samples}
            self._client.log_dict(self._id, table, f"samples/step-{step:06d}.json")

    def close(self, status: str) -> None:
        self._client.set_terminated(self._id, STATUS[status])


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Dotted keys with values as text; lists as JSON."""
    found: dict[str, str] = {}
    for key, value in config.items():
        name = f"{prefix}{_NOT_IN_A_NAME.sub('_', str(key))}"
        if isinstance(value, Mapping):
            found |= flat(value, f"{name}.")
        else:
            found[name] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return found
