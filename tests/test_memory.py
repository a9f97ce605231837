"""The memory that a run says it took."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.command_line import environment

CHILD = "from pggrpo_cli.memory import peak_resident_bytes; print(peak_resident_bytes())"
PARENT = f"""
import subprocess, sys
held = bytearray(b"x") * 400_000_000
print(subprocess.run([sys.executable, "-c", {CHILD!r}], capture_output=True, text=True, check=True).stdout)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the kernel keeps no such account")
def test_the_peak_is_that_of_the_program_and_not_of_what_started_it() -> None:
    done = subprocess.run([sys.executable, "-c", PARENT], env=environment(), capture_output=True, text=True, check=True)
    assert 5e6 < int(done.stdout) < 200e6


def test_the_peak_remembers_what_was_freed() -> None:
    text = CHILD.replace("; print", "; held = bytearray(b'x') * 300_000_000; del held; print")
    done = subprocess.run([sys.executable, "-c", text], env=environment(), capture_output=True, text=True, check=True)
    assert 300e6 < int(done.stdout) < 500e6
