"""What runs inside a sandbox, given to it as text: it imports only a little of the standard library.

A process is either the program's or the tests'. The tests' process never sees the program, nor the program the tests.
"""

from __future__ import annotations

import builtins
import json
import os
import resource
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from pggrpo_cli.sandbox.speech import Peer, Proxy


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


def prepare(peer: Peer, names: Iterable[str], setup: str, tests: dict[str, Any]) -> dict[str, Any]:
    """The tests' namespace: the program's names as proxies, but what Python or its library has is the real thing, whatever
    the program calls so: it could be what the answer is compared with."""
    tests["__name__"] = "tests"
    for name in names:
        if name in sys.stdlib_module_names:
            tests[name] = __import__(name)
        elif not hasattr(builtins, name):
            tests[name] = Proxy(peer, name)
    return examine(setup, tests)


def examine(test: str, tests: dict[str, Any]) -> dict[str, Any]:
    try:
        exec(compile(test, "<test>", "exec"), tests)
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


def main() -> None:
    limit(json.loads(sys.argv[1]))
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
            answer = prepare(peer, message["names"], message["setup"], tests)
        elif "test" in message:
            answer = examine(message["test"], tests)
        else:
            answer = peer.serve(message)
        peer.send(answer)
