"""A key that only some jobs of a sweep have."""

from __future__ import annotations

from pathlib import Path

import pytest

from pggrpo_cli.cli import main


@pytest.mark.parametrize("command", ["train", "plan"])
def test_it_is_said_with_which_choice_the_key_is_missing(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([command, "-m", "seed=1,2", "loss=pg_grpo,grpo", "loss.beta=0.1"]) == 2
    said = capsys.readouterr().err
    assert "`loss.beta`: there is no such key." in said
    assert "Did you mean loss.beta" not in said
    assert "So it is with seed=1 loss=grpo." in said
    assert not list(tmp_path.iterdir())
