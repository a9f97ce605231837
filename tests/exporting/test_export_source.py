"""Whose leftovers an export clears away. Which checkpoint it takes: tests/command/test_export.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from pggrpo_cli.exporting.export_source import clean_leftovers

DEAD = 2**22 + 1
"""No process has this number: Linux counts to 2²² at most."""


def folder(path: Path) -> Path:
    path.mkdir()
    (path / "model.safetensors").write_text(path.name)
    return path


@pytest.mark.parametrize("there", [False, True])
def test_an_export_of_another_name_keeps_its_only_copy(there: bool, tmp_path: Path) -> None:
    if there:
        folder(tmp_path / "my-model")
    others = [folder(tmp_path / f".{kind}-my-model-2-{DEAD}") for kind in ("replaced", "tmp")]
    clean_leftovers(tmp_path / "my-model")
    assert all((one / "model.safetensors").exists() for one in others)
    assert (tmp_path / "my-model").exists() == there


def test_signs_of_a_pattern_in_a_name_are_letters(tmp_path: Path) -> None:
    other = folder(tmp_path / f".replaced-model1-{DEAD}")
    own = folder(tmp_path / f".replaced-model[12]-{DEAD}")
    clean_leftovers(tmp_path / "model[12]")
    assert other.exists()
    assert not own.exists()
    assert (tmp_path / "model[12]" / "model.safetensors").read_text() == own.name


def test_its_own_leftovers_go_or_come_back(tmp_path: Path) -> None:
    half, replaced = (folder(tmp_path / f".{kind}-out-{DEAD}") for kind in ("tmp", "replaced"))
    clean_leftovers(tmp_path / "out")
    assert not half.exists()
    assert (tmp_path / "out" / "model.safetensors").read_text() == replaced.name
    later = folder(tmp_path / f".replaced-out-{DEAD + 1}")
    clean_leftovers(tmp_path / "out")
    assert not later.exists()
    clean_leftovers(tmp_path / "nowhere" / "out")
