"""One program against its tests. What is expected stays on this side; the program gets inputs and gives values."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from pggrpo_cli.code_testing.equal import same_text, same_value
from pggrpo_cli.code_testing.formats import Call, Script, Statements, Test
from pggrpo_cli.code_testing.names import Names, names_of
from pggrpo_cli.sandbox import speech
from pggrpo_cli.sandbox.limits import Limits
from pggrpo_cli.sandbox.mode import Sandbox
from pggrpo_cli.sandbox.process import ProgramEnded, SandboxProcess


class Failed(Exception):
    """This test is not passed."""


class Running:
    """A context manager: its processes are gone when it ends. The program has one process for all tests, and a new one
    after a test that ended it; statements have a second one that never sees the program."""

    def __init__(self, program: str, setup: str, sandbox: Sandbox, limits: Limits, wall_seconds: float) -> None:
        self._program, self._setup, self._sandbox, self._limits = program, setup, sandbox, limits
        self._wall_seconds, self._deadline = wall_seconds, 0.0
        self._process: SandboxProcess | None = None
        self._tests: SandboxProcess | None = None
        self._names: Names | None = None
        self._known = self._prepared = False
        """Whether the program's process has been told the program, and that of the tests what it defines."""

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        for process in (self._process, self._tests):
            if process is not None:
                process.kill()

    def passed(self, tests: Sequence[Test], all_needed: bool) -> list[bool]:
        """[tests]; with `all_needed` it stops after the first that fails. Raises NoStart where the sandbox is at fault."""
        if any(isinstance(test, Statements) for test in tests):
            self._tests = self._sandbox.start(self._limits)
            self._names = names_of(tests, self._setup)
        self._process = self._sandbox.start(self._limits)
        for process in (self._process, self._tests):
            if process is not None:
                process.wait_until_ready()  # the clock does not run while the machine starts interpreters
        self._deadline = time.monotonic() + self._wall_seconds
        passed: list[bool] = []
        for test in tests:
            passed.append(self._passes(test))
            if all_needed and not passed[-1]:
                break
        return passed

    def _passes(self, test: Test) -> bool:
        if time.monotonic() >= self._deadline:
            return False
        try:
            process, fresh = self._program_process()
            if isinstance(test, Script):
                return self._script(process, test, fresh)
            if fresh:
                self._define(process)
            if isinstance(test, Call):
                return same_value(self._value(process, test), test)
            return self._statements(process, test)
        except (ProgramEnded, Failed):
            return False
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError, speech.NoPlainValue):
            return False  # an answer that inside.py would not give: the program has written it, and it means nothing

    def _program_process(self) -> tuple[SandboxProcess, bool]:
        """The living one, and whether it has to be told the program."""
        assert self._process is not None
        if not self._process.alive:
            self._process.kill()
            self._process = self._sandbox.start(self._limits)
            self._known = False
        fresh, self._known = not self._known, True
        return self._process, fresh

    def _script(self, process: SandboxProcess, test: Script, fresh: bool) -> bool:
        if fresh:
            self._ask(process, {"script": self._program})
        answer = self._ask(process, {"run": test.stdin})
        return answer["good"] is True and same_text(answer["printed"], test.stdout)

    def _define(self, process: SandboxProcess) -> None:
        deadline, self._deadline = self._deadline, 0.0  # if it does not even run as a module, no further test is tried
        answer = json.loads(process.ask(_message({"define": self._program}), deadline))
        names = [name for name in answer["names"] if isinstance(name, str) and not name.startswith("__")]
        self._deadline = deadline
        if self._tests is not None and self._names is not None and not self._prepared:
            self._prepared = True
            meant = {key: sorted(value) for key, value in asdict(self._names).items()}
            self._ask(self._tests, {"names": names, "setup": self._setup, "meant": meant})

    def _value(self, process: SandboxProcess, test: Call) -> Any:
        arguments = [speech.encode(one, _refuse) for one in test.arguments]
        named = {name: speech.encode(one, _refuse) for name, one in test.named.items()}
        answer = self._ask(process, {"op": "call", "on": test.function, "args": arguments, "named": named})
        if "value" not in answer:
            raise Failed
        return speech.decode(answer["value"], _refuse)

    def _statements(self, process: SandboxProcess, test: Statements) -> bool:
        """The two processes talk in turns; what passes through here is not looked at, but for the verdict of the tests."""
        assert self._tests is not None
        message = _message({"test": test.source, "candidate": test.entry_point if test.calls_check else None})
        while True:
            said = self._tests.ask(message, self._deadline)
            spoken = json.loads(said)
            if "passed" in spoken:
                return spoken["passed"] is True and process.alive
            try:
                message = process.ask(said, self._deadline)
            except ProgramEnded:
                while "passed" not in spoken:  # so that it is ready for the next test
                    spoken = json.loads(self._tests.ask(_message({"ended": True}), self._deadline))
                raise

    def _ask(self, process: SandboxProcess, message: dict[str, Any]) -> dict[str, Any]:
        answer = json.loads(process.ask(_message(message), self._deadline))
        if not isinstance(answer, dict):
            raise Failed
        return answer


def _message(content: dict[str, Any]) -> bytes:
    return json.dumps(content).encode()


def _refuse(value: Any) -> Any:
    raise speech.NoPlainValue(type(value).__name__)
