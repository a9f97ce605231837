"""Against the real mlflow: its own store, and a server that is down."""

from __future__ import annotations

import json
import sqlite3
import time
from dataclasses import replace

import pytest

from pggrpo_cli.logger.mlflow import Mlflow, flat
from pggrpo_cli.types import RunContext
from tests.tracking.fake_library import need, save_config


def mlflow(uri: str | None = None, close_seconds: float = 60) -> Mlflow:
    return Mlflow(experiment="e", tracking_uri=uri, sample_every=2, close_seconds=close_seconds)


@pytest.mark.slow
def test_one_curve_after_a_resume(
    context: RunContext, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    need("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    save_config(context.run_dir, loss={"beta": 0.25}, reward={"mine": {"api_key": "canary", "stop": ["a", "b"]}})
    with mlflow().open(context) as logger:
        for step in (1, 2, 3):
            logger.sample("2 + 2 =", f"{step}", 1.0)  # type: ignore[attr-defined]
            logger.log(step, {"reward": step / 4, "clip_ratio/low_mean": None, "rewards/a%b/mean": 0.5})
    with mlflow().open(replace(context, resumed=True)) as logger:
        for step in (3, 4):
            logger.log(step, {"reward": step / 4})
    assert "warning" not in capfd.readouterr().err
    with sqlite3.connect(context.run_dir / "mlflow.db") as store:
        points = store.execute("SELECT key, step, value FROM metrics ORDER BY key, step").fetchall()
        params = dict(store.execute("SELECT key, value FROM params").fetchall())
        runs = store.execute("SELECT status FROM runs").fetchall()
    assert [one[1:] for one in points if one[0] == "reward"] == [(1, 0.25), (2, 0.5), (3, 0.75), (4, 1.0)]
    assert {one[0] for one in points} == {"reward", "rewards/a_b/mean"}
    assert runs == [("FINISHED",)]
    assert params["loss.beta"] == "0.25"
    assert params["reward.mine.stop"] == '["a", "b"]'
    assert "canary" not in json.dumps(params)
    (table,) = context.run_dir.glob("mlflow/**/samples/*.json")
    assert table.name == "step-000002.json"
    assert json.loads(table.read_text())["data"] == [["2 + 2 =", "1", 1.0], ["2 + 2 =", "2", 1.0]]


@pytest.mark.slow
def test_a_server_that_is_down_costs_close_seconds(context: RunContext, capfd: pytest.CaptureFixture[str]) -> None:
    need("mlflow")
    save_config(context.run_dir)
    with mlflow("http://127.0.0.1:9", close_seconds=4).open(context) as logger:
        logger.log(1, {"reward": 1.0})
        logger.log(2, {"reward": 1.0})
        started = time.monotonic()
    assert time.monotonic() - started < 9
    err = capfd.readouterr().err
    assert 1 <= err.count("warning") <= 2, err
    assert "metrics.jsonl" in err


def test_the_configuration_as_dotted_keys() -> None:
    config = {"a": {"b": 0.5, "c": {"d": None}}, "e": "text", "f": [1, "x"], "g": {}, "h%": True}
    assert flat(config) == {"a.b": "0.5", "a.c.d": "null", "e": "text", "f": '[1, "x"]', "h_": "true"}
