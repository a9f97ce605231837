"""What a run's JSON files say, whatever state they are in."""

from __future__ import annotations

from pathlib import Path

import pytest

from pggrpo_cli.json_file import read_object


def test_an_object_is_read(tmp_path: Path) -> None:
    (tmp_path / "f.json").write_text('{"step": 3, "wörter": [1]}', encoding="utf-8")
    assert read_object(tmp_path / "f.json") == {"step": 3, "wörter": [1]}


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"null", b"\xff{}", b"[" * 100_000])
def test_anything_else_says_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "f.json").write_bytes(content)
    assert read_object(tmp_path / "f.json") == {}
    assert read_object(tmp_path / "none.json") == read_object(tmp_path) == {}
