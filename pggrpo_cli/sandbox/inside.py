"""What runs inside a sandbox, given to it as text: it imports only a little of the standard library.

A process is either the program's or the tests'. The tests' process never sees the program, nor the program the tests.
"""

from __future__ import annotations

import builtins
import json
import os
import resource
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pggrpo_cli.sandbox.speech import Peer, Proxy

PR_SET_PDEATHSIG = 1
"""linux/prctl.h."""


def module(name: str) -> dict[str, Any]:
    """The namespace of a new module."""
    made = sys.modules[name] = type(sys)(name)
    return vars(made)


def define(peer: Peer, source: str) -> dict[str, Any]:
    """Runs the program as a module. The answer: the names that it defines, or what it raised."""
    namespace = peer.namespace = module("program")
    try:
        exec(compile(source, "<program>", "exec"), namespace)
    except BaseException as error:
        return {"raised": type(error).__name__}
    return {"names": [name for name in namespace if not name.startswith("__")]}


def connect(descriptor: int, name: str, flags: int) -> None:
    """A file of the working folder, of which only the descriptor remains."""
    opened = os.open(name, flags, 0o600)
    os.dup2(opened, descriptor)
    os.close(opened)
    os.unlink(name)


def run(source: str, text: str) -> dict[str, Any]:
    """The program as a script, once: real descriptors, so that open(0) and os.write(1, …) work too."""
    with open(".input", "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
    connect(0, ".input", os.O_RDONLY)
    connect(1, ".output", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)  # type: ignore[misc]  # noqa: SIM115
    sys.stdout = sys.__stdout__ = printed = open(1, "w", encoding="utf-8", errors="replace", closefd=False)  # type: ignore[misc]  # noqa: SIM115
    good = True
    try:
        exec(compile(source, "<program>", "exec"), module("__main__"))
        for thread in sys.modules["threading"].enumerate() if "threading" in sys.modules else ():
            if not thread.daemon and thread is not sys.modules["threading"].current_thread():
                thread.join()
    except SystemExit as error:
        good = error.code in (None, 0)
    except BaseException:
        good = False
    for stream in (sys.stdout, printed):
        try:
            stream.flush()
        except Exception:
            good = False
    size = os.lseek(1, 0, os.SEEK_END)
    return {"printed": os.pread(1, size, 0).decode("utf-8", "replace"), "good": good}


def prepare(
    peer: Peer, names: Iterable[str], setup: str, meant: Mapping[str, Sequence[str]], tests: dict[str, Any]
) -> dict[str, Any]:
    """The tests' namespace: the program's names as proxies. What Python or its library has is the real thing, whatever the
    program calls so (it could be what the answer is compared with), unless the tests mean the program's: `meant`, see names.py.
    """
    peer.defined, peer.classes = frozenset(names), frozenset(meant["classes"])
    tests["__name__"] = "tests"
    for name in peer.defined.union(meant["under_test"]):
        real = name not in meant["under_test"] and (name in meant["modules"] or hasattr(builtins, name))
        if not real or (name in meant["modules"] and not imported(name, tests)):
            tests[name] = Proxy(peer, name)
    return examine(setup, None, peer, tests)


def imported(name: str, tests: dict[str, Any]) -> bool:
    """False for what is not there: modules of another system, such as winreg."""
    try:
        tests[name] = __import__(name)
    except ImportError:
        return False
    return True


class Defined(dict[str, Any]):
    """The program's names, whatever Python calls so."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    def __missing__(self, name: str) -> Proxy:
        if name not in self._peer.defined and "Solution" not in self._peer.defined:
            raise NameError(f"the program defines no {name}")
        return Proxy(self._peer, name)


def examine(test: str, candidate: str | None, peer: Peer, tests: dict[str, Any]) -> dict[str, Any]:
    """`candidate`: what the test's check is called with, an expression in the program's names."""
    try:
        exec(compile(test, "<test>", "exec"), tests)
        if candidate is not None:
            tests["check"](eval(candidate, {}, Defined(peer)))
    except BaseException as error:
        return {"passed": False, "why": type(error).__name__}
    return {"passed": True}


def limit(values: Mapping[str, int]) -> None:
    """Before anything else; an unprivileged process cannot raise them again."""
    for name, value in (
        ("RLIMIT_CPU", values["cpu_seconds"]),
        ("RLIMIT_AS", values["memory_mb"] << 20),
        ("RLIMIT_FSIZE", values["file_bytes"]),
        ("RLIMIT_NOFILE", values["open_files"]),
        ("RLIMIT_NPROC", values["processes"]),
        ("RLIMIT_CORE", 0),
    ):
        if value < sys.maxsize:
            resource.setrlimit(getattr(resource, name), (value, value))


def end_with(parent: int) -> None:
    """Linux kills this process when the thread that started it ends. A program can undo that; one that only sleeps does not."""
    if sys.platform.startswith("linux"):
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it has ended before
            os._exit(0)


def main() -> None:
    values = json.loads(sys.argv[1])
    if values["parent"] is not None:
        end_with(values["parent"])
    limit(values)
    sys.argv[1:] = []
    sys.path[:] = [path for path in sys.path if path]
    peer = Peer(os.dup(0), os.dup(1), None)
    for descriptor in (0, 1, 2):
        connect(descriptor, ".nowhere", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    vars(builtins).update(exit=sys.exit, quit=sys.exit)  # which Python makes at a start with site-packages only
    peer.send({"ready": True})
    script, tests = "", module("tests")
    while True:
        message = peer.receive()
        source = message.get("define") or message.get("script") or ""
        if "random" in source:
            __import__("random").seed(0)  # a program that draws scores the same after a resume
        if "define" in message:
            answer = define(peer, source)
        elif "script" in message:
            script, answer = source, {}
        elif "run" in message:
            answer = run(script, message["run"])
        elif "names" in message:
            answer = prepare(peer, message["names"], message["setup"], message["meant"], tests)
        elif "test" in message:
            answer = examine(message["test"], message["candidate"], peer, tests)
        else:
            answer = peer.serve(message)
        peer.send(answer)
