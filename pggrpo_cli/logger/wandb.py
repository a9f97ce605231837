"""Metrics for Weights & Biases: online where there is a key, else offline in <run directory>/wandb."""

from __future__ import annotations

import netrc
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

from pggrpo_cli.ranges import Range
from pggrpo_cli.run_directory import shown
from pggrpo_cli.tracking.packages import require
from pggrpo_cli.tracking.process import SAMPLE_COLUMNS
from pggrpo_cli.tracking.tracker import say, tracked

if TYPE_CHECKING:
    from pggrpo_cli.protocols import OpenLogger
    from pggrpo_cli.types import RunContext

INIT_SECONDS = 15


@dataclass(frozen=True, kw_only=True)
class Wandb:
    """Each metric by its own name and step. Raises ConfigError if wandb is not installed."""

    project: str
    entity: str | None
    mode: Literal["auto", "online", "offline"]
    tags: list[str]
    sample_every: Annotated[int | None, Range(ge=1)]
    close_seconds: Annotated[float, Range(gt=0)]

    @contextmanager
    def open(self, context: RunContext) -> Iterator[OpenLogger]:
        require("wandb", extra="wandb", name="wandb")
        settings = {"project": self.project, "entity": self.entity, "tags": list(self.tags), "mode": self.mode}
        if self.mode == "auto":
            settings["mode"] = os.environ.get("WANDB_MODE") or ("online" if has_key() else "offline")
            if settings["mode"] == "offline" and not os.environ.get("WANDB_MODE"):
                say(f"wandb: no key is found, so offline. To upload: wandb login, then wandb {_sync(context.run_dir)}")
        with tracked(
            "wandb", settings, context, sample_every=self.sample_every, close_seconds=self.close_seconds
        ) as tracker:
            yield tracker


def has_key() -> bool:
    """Whether wandb would find one, by its rules: a variable, or a login in the netrc file."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").netloc
    named = os.environ.get("NETRC")
    for file in [named] if named else ["~/.netrc", "~/_netrc"]:
        path = Path(file).expanduser()
        try:
            if path.exists():
                return netrc.netrc(path).authenticators(host) is not None
        except (OSError, netrc.NetrcParseError):
            return False
    return False


def _sync(run_dir: Path) -> str:
    return f"sync {shown(run_dir)}/wandb/offline-run-*"


class Session:
    """In the tracker's own process."""

    def __init__(self, settings: Mapping[str, Any], run: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        import wandb

        self._wandb = wandb

        def begin(mode: Any) -> Any:
            return wandb.init(
                project=settings["project"],
                entity=settings["entity"],
                tags=settings["tags"],
                id=run["id"],
                name=run["name"],
                group=run["group"],
                config=dict(config),
                dir=run["folder"],
                resume="allow" if mode == "online" else None,
                mode=mode,
                settings=wandb.Settings(
                    console="off",
                    silent=True,
                    disable_code=True,
                    save_code=False,
                    init_timeout=INIT_SECONDS,
                    x_stats_pid=os.getppid(),
                ),
            )

        self.words = ""
        try:
            self._run = begin(settings["mode"])
            if settings["mode"] == "online" and self._run.url:
                self.words = str(self._run.url)
        except BaseException as error:  # SystemExit too
            if settings["mode"] != "online":
                raise
            wandb.teardown()
            self._run = begin("offline")
            reason = " ".join(str(error).split())[:200]
            self.words = f"not online ({reason}), so offline. To upload later: wandb {_sync(Path(run['folder']))}"

    def log(self, step: int, metrics: dict[str, float], samples: list[list[Any]]) -> None:
        row: dict[str, Any] = dict(metrics)
        if samples:
            row["samples"] = self._wandb.Table(columns=list(SAMPLE_COLUMNS), data=samples)
        self._run.log(row, step=step, commit=True)

    def close(self, status: str) -> None:
        self._run.finish(exit_code=0 if status == "finished" else 1)
