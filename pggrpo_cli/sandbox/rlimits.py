"""sandbox=rlimits: a bare process with resource limits. No isolation: files and network are open to it."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from tempfile import TemporaryDirectory

from pggrpo_cli.sandbox.bwrap import interpreter
from pggrpo_cli.sandbox.limits import Limits
from pggrpo_cli.sandbox.process import INSIDE, SandboxProcess

NO_PROCESSES = 0
"""RLIMIT_NPROC counts all of the user's processes, so it can only be none: neither fork nor threads. Root is not bound."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rlimits:
    """Against accidents alone: endless loops, memory, output. The environment and the working folder are empty."""

    @property
    def words(self) -> str:
        return "with resource limits alone: files and network are open to them (docs/sandbox.md)"

    def start(self, limits: Limits) -> SandboxProcess:
        folder = TemporaryDirectory(prefix="pggrpo-", ignore_cleanup_errors=True)
        environment = {"PYTHONHASHSEED": "0", "HOME": folder.name, "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
        processes = sys.maxsize if _unbounded() else NO_PROCESSES
        command = [interpreter(), "-s", "-S", "-B", "-c", INSIDE, limits.as_argument(processes, os.getpid())]
        return SandboxProcess(command, environment=environment, folder=folder, own_session=True)


def _unbounded() -> bool:
    """Where the limit is not per user, or not there at all (macOS counts, but refuses none below its own)."""
    return not sys.platform.startswith("linux")
