"""docs/faults.md says of every fault of the catalogue what happens, and a test stands behind each line."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
CATALOGUE = range(1, 43)
WITHOUT_A_TEST = {41}
"""What cannot be: no checkpoint is written beside the training."""


def numbers(text: str) -> set[int]:
    """Of "T1–T3", "T21, T22"."""
    found: set[int] = set()
    for first, last in re.findall(r"T(\d+)(?:–T(\d+))?", text):
        found |= set(range(int(first), int(last or first) + 1))
    return found


def test_every_fault_is_in_the_table_or_named_as_missing() -> None:
    page = (ROOT / "docs" / "faults.md").read_text()
    table, _, rest = page.partition("Not there yet:")
    promised = set().union(*(numbers(line.split("|")[1]) for line in table.splitlines() if line.startswith("| T")))
    missing = numbers(rest)
    assert promised | missing == set(CATALOGUE)
    assert not promised & missing
    marked = set().union(
        *(
            numbers(" ".join(re.findall(r"\bfault\(([^)]*)\)", file.read_text())))
            for file in (ROOT / "tests").rglob("test_*.py")
        )
    )
    assert marked >= promised - WITHOUT_A_TEST
