"""reward=code_tests: how many of the row's tests the completion's program passes, in a sandbox."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from pggrpo_cli.code_testing.formats import Test, read_tests
from pggrpo_cli.code_testing.running import Running
from pggrpo_cli.errors import ConfigError, DataError
from pggrpo_cli.ranges import Range
from pggrpo_cli.sandbox.limits import Limits
from pggrpo_cli.sandbox.mode import Mode, Sandbox, sandbox
from pggrpo_cli.sandbox.process import NoStart
from pggrpo_cli.types import RewardContext, Sample, ScoreError

_FENCED = re.compile(r"^[ \t]*```[ \t]*(\w*)[^\n]*\n(.*?)(?:```|\Z)", re.DOTALL | re.MULTILINE)
_PYTHON = ("", "python", "python3", "py")


@dataclass(frozen=True, kw_only=True)
class CodeTests:
    """The share of the tests in column `tests_column` that the program passes; without `partial`, 1 for all of them and 0
    otherwise. None (does not apply) for a row without tests. The program is the last ``` block, if it has a language
    that of Python; without one it is the whole completion, or with `fenced_only` there is none, which is worth 0.

    The program sees its inputs, never what is expected (docs/sandbox.md). Whatever it does is worth 0 at worst; what hinders the
    sandbox itself is an error. `setup_column` (null: none) holds code that the tests need, `entry_point_column` the name
    of the function that HumanEval's check(candidate) is to check. All tests of a program together take `wall_seconds`
    at most, each of its processes `cpu_seconds` and `memory_mb`.
    """

    tests_column: str
    setup_column: str | None
    entry_point_column: str | None
    partial: bool
    fenced_only: bool
    sandbox: Mode
    cpu_seconds: Annotated[int, Range(ge=1)]
    wall_seconds: Annotated[float, Range(gt=0)]
    memory_mb: Annotated[int, Range(ge=64)]

    @contextmanager
    def open(self, context: RewardContext) -> Iterator[OpenCodeTests]:
        """Raises ConfigError where the sandbox does not work."""
        limits = Limits(cpu_seconds=self.cpu_seconds, memory_mb=self.memory_mb)
        yield OpenCodeTests(self, sandbox(self.sandbox, limits, "reward.code_tests.sandbox"), limits)


class OpenCodeTests:
    """Scores; nothing stays alive between two programs."""

    def __init__(self, settings: CodeTests, place: Sandbox, limits: Limits) -> None:
        self._settings, self._sandbox, self._limits = settings, place, limits

    def describe(self) -> str:
        return f"the programs that the model writes run {self._sandbox.words}"

    def score(self, samples: Sequence[Sample]) -> list[float | ScoreError | None]:
        return [self._score(sample) for sample in samples]

    def _score(self, sample: Sample) -> float | ScoreError | None:
        settings = self._settings
        if settings.tests_column not in sample.columns:
            raise DataError(
                f"`reward.code_tests.tests_column`: a row has no column {settings.tests_column!r}; it has "
                f"{', '.join(map(repr, sample.columns)) or 'none beside the prompt'}."
            )
        tests = self._tests(sample.columns)
        if not tests:
            return None
        program = program_of(sample.completion, settings.fenced_only)
        if program is None or not program.strip():
            return 0.0
        setup = str(sample.columns.get(settings.setup_column or "") or "")
        try:
            with Running(program, setup, self._sandbox, self._limits, settings.wall_seconds) as running:
                passed = running.passed(tests, all_needed=not settings.partial)
        except NoStart as error:
            return ScoreError(message=f"the sandbox did not start: {error}")
        return sum(passed) / len(tests) if settings.partial else float(sum(passed) == len(tests))

    def _tests(self, columns: dict[str, Any]) -> list[Test]:
        settings = self._settings
        setup = columns.get(settings.setup_column or "") or ""
        if not isinstance(setup, str):
            raise ConfigError(
                f"`reward.code_tests.setup_column`: column {settings.setup_column!r} holds a {type(setup).__name__}; "
                "Python code as one text is needed."
            )
        entry_point = columns.get(settings.entry_point_column or "")
        where = f"`reward.code_tests.tests_column`: column {settings.tests_column!r}"
        return read_tests(
            columns[settings.tests_column], where, setup, entry_point if isinstance(entry_point, str) else None
        )


def program_of(completion: str, fenced_only: bool) -> str | None:
    """The last ``` block that may be Python, an unclosed one too; without one the completion, or None."""
    blocks = [text for language, text in _FENCED.findall(completion) if language.lower() in _PYTHON]
    if blocks:
        return str(blocks[-1])
    return None if fenced_only else completion
