"""Runs of earlier releases, one folder each in tests/golden, still go on.

A new one is made with the release's own `pggrpo train` and the words of run/overrides.yaml, in a folder that holds
questions.jsonl. What is there is never made again: that would test nothing.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.command_line import run

GOLDEN = sorted((Path(__file__).parent / "golden").iterdir())


@pytest.mark.fault("T42")
@pytest.mark.parametrize("golden", GOLDEN, ids=lambda folder: folder.name)
def test_it_goes_on(golden: Path, tmp_path: Path) -> None:
    place = tmp_path / "copy"
    shutil.copytree(golden, place)
    before = (place / "run" / "metrics.jsonl").read_text()
    ended = run(["resume", "run", "trainer.max_steps=3"], place)
    assert ended.returncode == 0, ended.stderr
    after = (place / "run" / "metrics.jsonl").read_text()
    assert after.startswith(before)
    assert [json.loads(line)["step"] for line in after.splitlines()] == [0, 1, 2, 3]
    assert (place / "run" / "checkpoints" / "step-000003" / "manifest.json").exists()


def test_the_first_release_is_there() -> None:
    assert "0.1.0" in [folder.name for folder in GOLDEN]
