"""Against the real trackio, on this machine."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from pggrpo_cli.logger.trackio import Trackio
from pggrpo_cli.types import RunContext
from tests.tracking.fake_library import need, save_config


@pytest.mark.slow
def test_one_curve_after_a_resume(
    context: RunContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    need("trackio")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "store"))
    save_config(context.run_dir, loss={"beta": 0.25}, reward={"mine": {"api_key": "canary"}})
    trackio = Trackio(project="p", space_id=None, sample_every=2, close_seconds=60)
    with trackio.open(context) as logger:
        for step in (1, 2, 3):
            logger.sample("2 + 2 =", f"{step}", 1.0)  # type: ignore[attr-defined]
            logger.log(step, {"reward": step / 4, "clip_ratio/low_mean": None})
    with trackio.open(replace(context, resumed=True)) as logger:
        for step in (3, 4):
            logger.log(step, {"reward": step / 4})
    assert capfd.readouterr().out == ""
    with sqlite3.connect(tmp_path / "store" / "p.db") as store:
        rows = store.execute("SELECT run_name, step, metrics FROM metrics ORDER BY id").fetchall()
        configs = str(store.execute("SELECT config FROM configs").fetchall())
    assert [(step, json.loads(text)["reward"]) for _, step, text in rows] == [(1, 0.25), (2, 0.5), (3, 0.75), (4, 1.0)]
    assert len({name for name, _, _ in rows}) == 1
    assert "clip_ratio/low_mean" not in json.loads(rows[0][2])
    samples = [(step, json.loads(text)["samples"]) for _, step, text in rows if "samples" in json.loads(text)]
    assert [step for step, _ in samples] == [2]
    assert [row["completion"] for row in samples[0][1]["_value"]] == ["1", "2"]
    assert "0.25" in configs
    assert "canary" not in configs
