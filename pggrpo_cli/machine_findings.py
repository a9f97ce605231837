"""The machine and what is installed on it, as `pggrpo doctor` finds them. torch is imported last."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from pggrpo_cli import __version__
from pggrpo_cli.errors import ConfigError
from pggrpo_cli.findings import Finding, ok, trouble, warning

NEEDED_PYTHON = (3, 10)
NOT_FOR_USERS = ("dev", "oracle")
"""Extras for those who work on pggrpo itself."""
CGROUP = Path("/sys/fs/cgroup")


def machine_findings() -> Iterator[Finding]:
    """Quick ones first; importing torch takes seconds."""
    yield from _python()
    yield from _packages()
    yield _cores()
    yield _memory()
    yield _disk()
    yield _sandbox()
    yield from _torch()


def cores() -> int:
    """Processors that this process may use: its affinity, and the quota of a container."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _cgroup("cpu.max").partition(" ")
    if quota.isdigit() and period.isdigit() and int(period):
        allowed = min(allowed, max(1, round(int(quota) / int(period))))
    return allowed


def available_memory() -> int:
    """Bytes that are free, of the machine and of a container's limit."""
    import psutil

    free = int(psutil.virtual_memory().available)
    limit, used = _cgroup("memory.max"), _cgroup("memory.current")
    return min(free, max(0, int(limit) - int(used))) if limit.isdigit() and used.isdigit() else free


def total_memory() -> int:
    """Bytes of the machine, or a container's limit."""
    import psutil

    total, limit = int(psutil.virtual_memory().total), _cgroup("memory.max")
    return min(total, int(limit)) if limit.isdigit() else total


def _python() -> Iterator[Finding]:
    said = f"{platform.python_version()} on {platform.system()} {platform.machine()}, pggrpo {__version__}"
    if sys.version_info < NEEDED_PYTHON:
        yield trouble("python", said, f"pggrpo needs ≥ {'.'.join(map(str, NEEDED_PYTHON))}: make a new environment.")
    else:
        yield ok("python", said)


def _packages() -> Iterator[Finding]:
    """What pggrpo requires, by its own metadata, and the extras."""
    from packaging.requirements import Requirement

    try:
        wanted = [Requirement(line) for line in requires("pggrpo") or []]
    except PackageNotFoundError:
        yield warning(
            "packages",
            "pggrpo itself is not installed, so its requirements are not known",
            "pip install -e . in its folder",
        )
        return
    present: list[str] = []
    missing: dict[str, list[str]] = {}
    for one in wanted:
        extra = str(one.marker).partition("extra == ")[2].strip("'\" ") if one.marker is not None else ""
        if extra in NOT_FOR_USERS:
            continue
        try:
            found = version(one.name)
        except PackageNotFoundError:
            if extra:
                missing.setdefault(extra, []).append(one.name)
            else:
                yield trouble(one.name, "is not installed, and pggrpo needs it", f"pip install '{_bare(one)}'")
            continue
        if one.specifier.contains(found, prereleases=True):
            present.append(f"{one.name} {found}")
        else:
            finding = warning if extra else trouble
            yield finding(one.name, f"{found} is not {one.specifier}", f"pip install '{_bare(one)}'")
    yield ok("packages", ", ".join(dict.fromkeys(present)))
    told: set[str] = set()
    for extra, names in missing.items():
        if new := [name for name in names if name not in told]:
            told.update(new)
            are = "is" if len(new) == 1 else "are"
            yield warning(", ".join(new), f"{are} not installed (optional)", f"pip install 'pggrpo[{extra}]'")


def _bare(requirement: object) -> str:
    return str(requirement).partition(";")[0].strip()


def _cores() -> Finding:
    there, allowed = os.cpu_count() or 1, cores()
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdigit() and int(wanted) > allowed:
        return warning(
            "cores", f"{allowed} of {there}, but OMP_NUM_THREADS={wanted}: threads would wait for each other",
            f"export OMP_NUM_THREADS={allowed}",
        )  # fmt: skip
    return ok("cores", f"{allowed}" if allowed == there else f"{allowed} of {there} may be used")


def _memory() -> Finding:
    import psutil

    return ok("memory", f"{available_memory() / 1e9:.1f} GB free of {psutil.virtual_memory().total / 1e9:.1f} GB")


def _disk() -> Finding:
    """Of the folder that runs are written to."""
    here = Path.cwd()
    free = f"{shutil.disk_usage(here).free / 1e9:.1f} GB free in this folder"
    if not os.access(here, os.W_OK):
        return trouble(
            "disk", f"{here} cannot be written to, and runs go to outputs/ in it", "start in a folder of yours"
        )
    return ok("disk", free)


def _sandbox() -> Finding:
    """Where reward=code_tests runs programs: is a first one really run there?"""
    from pggrpo_cli.sandbox.limits import Limits
    from pggrpo_cli.sandbox.mode import sandbox

    try:
        place = sandbox("bwrap", Limits(cpu_seconds=10, memory_mb=512), "sandbox")
    except ConfigError as error:
        return warning("sandbox", str(error).partition(": ")[2], "only reward=code_tests needs it; see docs/sandbox.md")
    return ok("sandbox", f"programs that a model writes run {place.words}")


def _torch() -> Iterator[Finding]:
    """Threads and devices, and whether they multiply in bfloat16."""
    import torch

    from pggrpo_cli.policy import resolve_compute_dtype

    threads, allowed = torch.get_num_threads(), cores()
    names = {"cpu": f"{threads} threads"}
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        names[f"cuda:{index}"] = f"{about.name}, {about.total_memory / 1e9:.0f} GB"
    for name, about_it in names.items():
        narrow = resolve_compute_dtype("auto", torch.device(name)) == torch.bfloat16
        dtype = "bfloat16 in hardware" if narrow else "no bfloat16 in hardware, so it computes in float32"
        yield ok(name, f"{about_it}; {dtype}")
    yield _compiled_code()
    if threads > allowed:
        yield warning(
            "threads", f"torch uses {threads} threads on {allowed} cores: they wait for each other",
            f"export OMP_NUM_THREADS={allowed}",
        )  # fmt: skip
    if torch.version.cuda is not None and not torch.cuda.is_available():
        yield warning(
            "cuda", f"torch was built for CUDA {torch.version.cuda}, and sees no GPU",
            "nvidia-smi shows whether the driver does; without a GPU a CPU build of torch is smaller",
        )  # fmt: skip


def _compiled_code() -> Finding:
    import torch

    from pggrpo_cli.compiled.library import NoCompiler, Uncompiled, compiler, library
    from pggrpo_cli.policy import resolve_compute_dtype

    dtype = resolve_compute_dtype("auto", torch.device("cpu"))
    try:
        command = compiler()
        library(bfloat16=dtype == torch.bfloat16)
    except NoCompiler as reason:
        return warning(
            "compiled code", f"none: {reason}", "completions come two to three times as fast with one: apt install gcc"
        )
    except Uncompiled as reason:
        return warning("compiled code", f"none, so rollouts and updates are slower: {reason}", "mend that if you can")
    return ok("compiled code", f"by {' '.join(command)}, for rollouts and updates of the Llama family on the CPU")


def _cgroup(name: str) -> str:
    try:
        return (CGROUP / name).read_text(encoding="utf-8").strip()
    except OSError:
        return ""
