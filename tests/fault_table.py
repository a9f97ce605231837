"""docs/faults_tried.md from a run of the tests: pytest --faults docs/faults_tried.md."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

HEADING = """# Faults: what the tests tried

Written by `make faults`. What is promised, and what each number means, stands in [faults.md](faults.md).
"""


class FaultTable:
    """A pytest plugin: counts the tests of each fault, and the kills that tests report as a property."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._outcomes: dict[str, Counter[str]] = {}
        self._kills: dict[str, list[tuple[int, str]]] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item, call):  # type: ignore[no-untyped-def]
        report = yield
        if report.when == "call" or not report.passed:
            for marker in item.iter_markers("fault"):
                for number in marker.args:
                    self._outcomes.setdefault(number, Counter())[report.outcome] += 1
            reported = [value for name, value in report.user_properties if name == "kills"]
            if "record_property" in item.fixturenames:
                name = item.nodeid.partition("::")[2]
                self._kills.setdefault(name, []).append((sum(reported), report.outcome))
        return report

    def pytest_sessionfinish(self) -> None:
        lines = [HEADING, "## kill -9", "", "| run | kills | lost steps, differing bytes |", "|---|---|---|"]
        for name, reports in self._kills.items():
            # A test passes only if the last step and every byte are those of the run that nobody killed.
            good = all(outcome == "passed" for _, outcome in reports)
            kills = sum(number for number, _ in reports)
            lines.append(f"| `{name}` | {kills} | {'0, 0' if good else '**the test failed**'} |")
        tried = sum(number for reports in self._kills.values() for number, _ in reports)
        lines += [f"| all | {tried} | |", "", "## Catalogue", "", "| fault | tests passed | failed | skipped |"]
        lines += ["|---|---|---|---|"]
        for number in sorted(self._outcomes, key=lambda name: int(name[1:])):
            count = self._outcomes[number]
            lines.append(f"| {number} | {count['passed']} | {count['failed']} | {count['skipped']} |")
        self._target.write_text("\n".join(lines) + "\n", encoding="utf-8")
