"""Fixtures for tests of the command line; a test module names this one in pytest_plugins."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from tests.command_line import PretendedTraining, make_groups


def pretended_environment(computes: str) -> dict[str, object]:
    return {"argv": ["pggrpo"], "computes": computes, "threads": {"torch": 2}, "versions": {"torch": "2.0"}}


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> PretendedTraining:
    """Trains nothing; environment.json is described without asking git or torch."""
    pretended = PretendedTraining()
    module = types.ModuleType("pggrpo_cli.assemble")
    module.run_training = pretended.run_training  # type: ignore[attr-defined]
    module.find_checkpoint = lambda path: path  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pggrpo_cli.assemble", module)
    monkeypatch.setattr("pggrpo_cli.environment.describe_environment", pretended_environment)
    return pretended


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """make_groups beside an empty working folder, which the test starts in."""
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return make_groups(tmp_path / "groups")
