"""Runs of the real program that are killed with SIGKILL at a chosen point.

A server process imports everything once, on one thread, and forks a child for each run: a real process that does what
`pggrpo` does, whose functions named in POINTS count as events before they begin and after they end. At event number
`kill_at` the child sends itself SIGKILL. The program itself knows nothing of this.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.command_line import environment

POINTS = {
    "configuration": "pggrpo_cli.run_directory:save_config",
    "overrides": "pggrpo_cli.run_directory:save_overrides",
    "environment": "pggrpo_cli.environment:describe_environment",
    "finished": "pggrpo_cli.assemble:save_finished",
    "evaluation": "pggrpo_cli.evaluation:Evaluation.run",
    "rollout": "pggrpo_cli.sampler.native:OpenNative.sample",
    "offline rollout": "pggrpo_cli.sampler.offline:OpenOffline.sample",
    "a token": "pggrpo_cli.engine.decoding:_Batch.feed",
    "scoring": "pggrpo_cli.scoring.scorer:Scoring.finish",
    "reference": "pggrpo_cli.update:Updater._add_references",
    "old log-probabilities": "pggrpo_cli.update:Updater._add_olds",
    "micro-batch": "pggrpo_cli.update:Updater._backward",
    "optimizer step": "pggrpo_cli.update:Updater._apply",
    "samples": "pggrpo_cli.recorder:Recorder.samples",
    "metrics": "pggrpo_cli.recorder:Recorder.metrics",
    "a line": "pggrpo_cli.recorder:_Lines.append",
    "cutting back": "pggrpo_cli.recorder:_Lines.cut",
    "checkpoint": "pggrpo_cli.saving:Saver.save",
    "weights": "pggrpo_cli.saving:Saver._export",
    "tensors": "pggrpo_cli.checkpoint:save_file",
    "states": "pggrpo_cli.checkpoint:_write_states",
    "fsync": "pggrpo_cli.checkpoint:flush",
    "manifest": "pggrpo_cli.checkpoint:write_manifest",
    "commit": "pggrpo_cli.checkpoint:put_in_place",
    "fsync of the parent": "pggrpo_cli.whole_folder:flush",
    "rename": "os:rename",
    "replacement": "os:replace",
    "purge": "pggrpo_cli.saving:purge",
    "deletion": "pggrpo_cli.checkpoint:_discard",
    "removal": "pggrpo_cli.checkpoint:remove",
    "restoring": "pggrpo_cli.saving:Saver.restore",
}
TIMES = ("time/", "step_time", "tokens_per_second", "memory/")
KILLED = -signal.SIGKILL


@dataclass(frozen=True)
class Ended:
    code: int
    events: list[str]
    """Of a run that was not to be killed: "before rollout", "after rollout", …"""
    output: str


class Killer:
    """The server, asked from a test."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-c", "from tests.killing import serve; serve()"],
            env={**environment(), "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self,
        arguments: list[str],
        folder: Path,
        kill_at: int | None = None,
        number: int = signal.SIGKILL,
        times: int = 1,
    ) -> Ended:
        """`pggrpo <arguments>` in `folder`, killed at that event (or sent signal `number`, so many times)."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        request = {
            "arguments": arguments, "folder": str(folder), "kill_at": kill_at, "number": number, "times": times
        }  # fmt: skip
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return Ended(**json.loads(self._server.stdout.readline()))

    def close(self) -> None:
        self._server.communicate(timeout=20)


def serve() -> None:
    import torch

    torch.set_num_threads(1)  # a pool of threads does not survive a fork
    for target in POINTS.values():
        importlib.import_module(target.partition(":")[0])
    for name in (
        "assemble",
        "cli",
        "command.train",
        "command.resume",
        "hydra_start",
        "training",
        "model.tiny",
        "data.jsonl",
    ):
        importlib.import_module(f"pggrpo_cli.{name}")
    for line in sys.stdin:
        request = json.loads(line)
        folder = Path(request["folder"])
        child = os.fork()
        if child == 0:
            _child(request["arguments"], folder, request["kill_at"], request["number"], request["times"])
        _, status = os.waitpid(child, 0)
        events = folder / "events.json"
        ended = Ended(
            code=os.waitstatus_to_exitcode(status),
            events=json.loads(events.read_text()) if request["kill_at"] is None and events.exists() else [],
            output=(folder / "output.txt").read_text(errors="replace"),
        )
        print(json.dumps(ended.__dict__), flush=True)


def _child(arguments: list[str], folder: Path, kill_at: int | None, number: int, times: int) -> None:
    code = 70
    try:
        os.chdir(folder)
        output = os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (output, 1), (output, 2)):
            os.dup2(source, target)
        sys.argv = ["pggrpo", *arguments]
        events = _watch(kill_at, number, times)
        from pggrpo_cli.cli import main

        code = main(arguments)
        Path("events.json").write_text(json.dumps(events))
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _watch(kill_at: int | None, number: int, times: int) -> list[str]:
    """Wraps every point; the events as they come."""
    events: list[str] = []

    def event(name: str, last_words: Callable[[], None] | None = None) -> None:
        events.append(name)
        if len(events) == kill_at:
            if last_words is not None and number == signal.SIGKILL:
                last_words()
            abandoned: BaseException | None = None
            for _ in range(times):
                try:
                    os.kill(os.getpid(), number)
                except BaseException as error:  # what the first signal raises must not keep the second one back
                    abandoned = error
            if abandoned is not None:
                raise abandoned

    for name, target in POINTS.items():
        module, _, path = target.partition(":")
        *owners, attribute = path.split(".")
        owner: Any = importlib.import_module(module)
        for part in owners:
            owner = getattr(owner, part)
        setattr(owner, attribute, _counted(name, getattr(owner, attribute), event))
    return events


def _counted(name: str, original: Callable[..., Any], event: Callable[..., None]) -> Callable[..., Any]:
    @functools.wraps(original)
    def call(*arguments: Any, **options: Any) -> Any:
        event(f"before {name}", (lambda: _half_a_line(*arguments)) if name == "a line" else None)
        result = original(*arguments, **options)
        event(f"after {name}")
        return result

    return call


def _half_a_line(lines: Any, text: str) -> None:
    """The kernel may have taken only a part of what was to be written."""
    data = text.encode()
    os.write(lines._file.fileno(), data[: len(data) // 2])


def fingerprint(run: Path, step: int) -> dict[str, Any]:
    """Everything that must be equal: every file of the last checkpoint, byte for byte, metrics and samples; times aside."""
    folder = run / "checkpoints" / f"step-{step:06d}"
    found: dict[str, Any] = {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name not in ("state.json", "manifest.json")  # seconds, and a hash of them
    }
    state = json.loads((folder / "state.json").read_text())
    state["progress"].pop("seconds")
    state["components"]["recorder"].pop("metrics")  # bytes: the digits of times differ
    found["state"] = state
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found["metrics"] = [{key: value for key, value in line.items() if not key.startswith(TIMES)} for line in lines]
    found["samples"] = (run / "samples.jsonl").read_text()
    found["finished"] = (run / "finished.json").read_text()
    found["checkpoints"] = sorted(path.name for path in (run / "checkpoints").iterdir())
    return found
