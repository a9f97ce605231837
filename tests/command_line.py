"""For tests of the command line: a folder of groups of a user's own, a training that only pretends, many commands in
one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PARTS = """
class Part:
    def __init__(self, beta=0.1): ...
def factory(parameters, lr): ...
"""
GROUPS = {
    "logger/mine": "# @package logger\nmine: {_target_: parts.Part}",
    "loss/other": "{_target_: parts.Part, beta: 0.2}",
    "reward/mine": "# @package reward\nmine: {_target_: parts.Part, weight: 2}",
    "reward/nameless": "{_target_: parts.Part, weight: 2}",
}
RUNNER = """
import contextlib, io, json, sys
from pggrpo_cli.cli import main
found = []
for arguments in json.loads(sys.stdin.read()):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    heavy = [name for name in ("torch", "transformers", "datasets", "pandas") if name in sys.modules]
    found.append([code, out.getvalue(), err.getvalue(), heavy])
print(json.dumps(found))
"""


def make_groups(folder: Path) -> Path:
    """A --config-dir with groups of a user's own and the Python file that their classes are in."""
    for name, text in GROUPS.items():
        file = folder / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    (folder / "parts.py").write_text(PARTS)
    return folder


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}


def run_all(lines: list[list[str]], folder: Path) -> list[tuple[int, str, str, list[str]]]:
    """(exit code, stdout, stderr, heavy modules loaded) of each command, in one fresh process started in `folder`."""
    done = subprocess.run(
        [sys.executable, "-c", RUNNER], input=json.dumps(lines), cwd=folder, env=environment(), **_CAPTURE
    )
    assert done.returncode == 0, done.stderr
    return [(code, out, err, heavy) for code, out, err, heavy in json.loads(done.stdout)]


def run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """The real program."""
    command = [sys.executable, "-m", "pggrpo_cli", *arguments]
    return subprocess.run(command, cwd=folder, env=environment(), **_CAPTURE)


_CAPTURE: dict[str, Any] = {"capture_output": True, "text": True, "encoding": "utf-8", "timeout": 120}


class PretendedTraining:
    """Stands for pggrpo_cli.assemble: notes each call and leaves what a run leaves."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, Path, Path | None]] = []
        self.error: Exception | None = None
        self.finishes = True
        self.reward = 0.5
        self.said: list[str] = []
        self.signal: int | None = None
        """What comes in the last step."""

    def run_training(
        self, config: Any, run_dir: Path, resume_from: Path | None, interruption: Any, begin: Callable[[str], list[str]]
    ) -> dict[str, float]:
        self.calls.append((config, run_dir, resume_from))
        if self.error is not None:
            raise self.error
        self.said = begin("float32 on cpu")
        (run_dir / "metrics.jsonl").write_text('{"step": 1}\n')
        make_checkpoint(run_dir)
        interruption.signal = self.signal
        if self.finishes:
            (run_dir / "finished.json").write_text(json.dumps({"step": config.trainer.max_steps}))
        return {"reward": 0.1, "eval/reward": self.reward}


def make_checkpoint(run_dir: Path, step: int = 1) -> Path:
    folder = run_dir / "checkpoints" / f"step-{step:06d}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text("{}")
    return folder
