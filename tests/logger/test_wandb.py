"""Against the real wandb, offline. What it cannot be made to do: tests/tracking/test_tracker.py."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pggrpo_cli.logger.wandb import Wandb, has_key
from pggrpo_cli.types import RunContext
from tests.command_line import run
from tests.tracking.fake_library import need, save_config

BLOCK = 32768


def wandb() -> Wandb:
    return Wandb(project="p", entity=None, mode="auto", tags=["t"], sample_every=2, close_seconds=60)


@pytest.fixture
def no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def records(run_dir: Path) -> Iterator[tuple[str, Any]]:
    """(kind, record) of all offline sessions: a file of LevelDB's log format, with protobuf messages."""
    from wandb.proto import wandb_internal_pb2

    for file in sorted(run_dir.glob("wandb/offline-run-*/*.wandb")):
        data, at, message = file.read_bytes(), 7, b""
        while at + 7 <= len(data):
            if BLOCK - at % BLOCK < 7:
                at += BLOCK - at % BLOCK
                continue
            _, size, kind = struct.unpack("<IHB", data[at : at + 7])
            message += data[at + 7 : at + 7 + size]
            at += 7 + size
            if kind in (1, 4):  # whole, or the last part
                record = wandb_internal_pb2.Record()
                record.ParseFromString(message)
                name, message = record.WhichOneof("record_type"), b""
                yield name, getattr(record, name)


def history(run_dir: Path) -> list[tuple[int, dict[str, Any]]]:
    rows = [one for kind, one in records(run_dir) if kind == "history"]
    return [
        (row.step.num, {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in row.item})
        for row in rows
    ]


@pytest.mark.slow
@pytest.mark.usefixtures("no_key")
def test_offline_without_a_key_and_one_curve_after_a_resume(
    context: RunContext, capfd: pytest.CaptureFixture[str]
) -> None:
    need("wandb")
    save_config(context.run_dir, loss={"beta": 0.25}, reward={"http": {"api_key": "canary"}})
    with wandb().open(context) as logger:
        for step in (1, 2, 3):
            logger.sample("2 + 2 =", f"{step}", 1.0)  # type: ignore[attr-defined]
            logger.log(step, {"reward": step / 4, "clip_ratio/low_mean": None, "kl": 0.5})
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("wandb: no key is found, so offline.")
    with wandb().open(replace(context, resumed=True)) as logger:
        for step in (3, 4):
            logger.log(step, {"reward": step / 4})
    rows = history(context.run_dir)
    assert [(step, row["reward"]) for step, row in rows] == [(1, 0.25), (2, 0.5), (3, 0.75), (4, 1.0)]
    assert [row.get("kl") for _, row in rows] == [0.5, 0.5, 0.5, None]
    assert not any("clip_ratio/low_mean" in row for _, row in rows)
    assert [step for step, row in rows if row.get("samples/nrows") == 2] == [2]
    runs = [one for kind, one in records(context.run_dir) if kind == "run"]
    assert len({one.run_id for one in runs}) == 1
    config = {item.key: item.value_json for item in runs[0].config.update}
    assert json.loads(config["loss"]) == {"beta": 0.25}
    written = [file for file in context.run_dir.rglob("*") if file.is_file() and file.name != "config.yaml"]
    assert not any(b"canary" in file.read_bytes() for file in written)
    assert [one.exit_code for kind, one in records(context.run_dir) if kind == "exit"] == [0, 0]


@pytest.mark.usefixtures("no_key")
def test_which_keys_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not has_key()
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password secret\n")
    (tmp_path / "netrc").chmod(0o600)
    assert has_key()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert not has_key()
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    assert has_key()


@pytest.mark.slow
@pytest.mark.usefixtures("no_key")
def test_a_run_with_it_is_the_run_without_it(tmp_path: Path) -> None:
    """Neither numbers nor tokens nor what is printed."""
    need("wandb")
    found = []
    for name in ("console", "console,wandb"):
        words = ["train", "debug=fast", f"logger=[{name}]", "hydra.run.dir=run", "trainer.max_steps=2"]
        folder = tmp_path / name.replace(",", "-")
        folder.mkdir()
        done = run(words, folder)
        assert done.returncode == 0, done.stderr
        lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
        times = ("time/", "step_time", "tokens_per_second", "memory/")
        metrics = [{key: value for key, value in line.items() if not key.startswith(times)} for line in lines]
        found.append((metrics, (folder / "run" / "samples.jsonl").read_text(), done.stdout.count("\n")))
    assert found[0] == found[1]
    steps = [step for step, _ in history(tmp_path / "console-wandb" / "run")]
    assert steps == [line["step"] for line in found[0][0]]
