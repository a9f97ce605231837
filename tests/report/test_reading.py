"""What is read of runs in every state: going on, killed, resumed, cut off, full of NaN."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pggrpo_cli import run_directory
from pggrpo_cli.report.buckets import bucketed, thinned
from pggrpo_cli.report.metrics_file import read_metrics
from pggrpo_cli.report.run import is_at_work, read_run
from pggrpo_cli.report.samples_file import Samples
from tests.command_line import environment
from tests.report.run_files import make_run, samples_of, write_lines


@pytest.mark.fault("T38")
def test_lines_of_every_kind(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(
        b'{"step": 0, "eval/reward": 0.5}\n\n{"step": 1, "reward": null, "kl": NaN, "words": "x", "list": [1]}\n'
        b'not json\n[1]\n{"step": -1}\n{"step": true}\n{"step": 1.5}\n{"no": "step"}\n\xff\xfe\n' + b"[" * 5000 + b"\n"
        b'{"step": 2, "reward": 1e999, "kl": 1' + b"0" * 400 + b'}\n{"step": 3, "reward": 2}\n{"step": 4, "rew'
    )
    found = read_metrics(file)
    assert (found.last_step, found.lines, found.unreadable) == (3, 4, 8)  # the last one may be in the making
    assert set(found.series) == {"eval/reward", "reward", "kl"}
    assert found.get("reward").steps.tolist() == [1, 2, 3]
    assert [value if math.isfinite(value) else None for value in found.get("reward").values] == [None, None, 2.0]
    assert not found.has("kl")
    assert len(found.get("nothing")) == 0


def test_a_step_that_was_done_again_counts_once(tmp_path: Path) -> None:
    write_lines(
        tmp_path / "m", [{"step": step, "reward": value} for step, value in ((1, 1), (2, 2), (3, 3), (2, 5), (3, 6))]
    )
    found = read_metrics(tmp_path / "m").get("reward")
    assert (found.steps.tolist(), found.values.tolist()) == ([1, 2, 3], [1, 5, 6])


def test_no_file_is_no_line(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "none").lines == 0
    assert Samples(tmp_path / "none").steps(held_out=False) == []


def test_samples_are_found_by_step(tmp_path: Path) -> None:
    file = tmp_path / "samples.jsonl"
    write_lines(file, [line for step in range(11) for line in samples_of(step)])
    other_order = {"held_out": False, "completion": "by another hand", "step": 11, "reward": float("inf")}
    with open(file, "a") as out:
        out.write(json.dumps(other_order) + "\nnonsense\n" + json.dumps(samples_of(12)[0])[:40])
    found = Samples(file)
    assert found.steps(held_out=False) == list(range(1, 12))
    assert found.steps(held_out=True) == [0, 5, 10]
    assert found.count(7, held_out=False) == 8
    assert [one.completion for one in found.read(10, held_out=False)] == [
        line["completion"] for line in samples_of(10) if not line["held_out"]
    ]
    assert [one.reward for one in found.read(10, held_out=True)] == [
        line["reward"] for line in samples_of(10) if line["held_out"]
    ]
    (odd,) = found.read(11, held_out=False)
    assert (odd.completion, odd.reward) == ("by another hand", None)
    assert found.read(12, held_out=False) == []


def test_completions_of_a_step_that_was_done_again_count_once(tmp_path: Path) -> None:
    write_lines(tmp_path / "s", [*samples_of(1, text="old"), *samples_of(2), *samples_of(1, text="new")])
    found = Samples(tmp_path / "s")
    assert found.count(1, held_out=False) == 8
    assert {one.completion for one in found.read(1, held_out=False)} == {"new"}


def test_buckets_hide_no_extreme() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=100_003)
    values[77_777] = 50.0
    values[1000:2000] = np.nan
    steps = np.arange(1, len(values) + 1, dtype=float)
    found = bucketed(steps, values, 240)
    assert len(found.x) <= 240
    assert np.nanmax(found.high) == 50.0
    assert np.nanmin(found.low) == np.nanmin(values)
    first = slice(0, found.size)
    assert (found.x[0], found.mean[0]) == pytest.approx((steps[first].mean(), values[first].mean()))
    assert np.isnan(found.mean).sum() == 1000 // found.size - 1
    short = bucketed(steps[:240], values[:240], 240)
    assert (short.size, short.mean.tolist()) == (1, values[:240].tolist())
    places = thinned(1000, 7)
    assert (len(places), places[0], places[-1]) == (7, 0, 999)


def test_amounts(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "run", steps=10, seed=2), "run")
    steps = np.array([0.0, 5.0, 10.0])
    assert run.amount_at("completions", steps).tolist() == [0, 40, 80]
    assert run.amount_at("num_tokens", steps).tolist() == [0, 1500, 3000]
    assert run.amount_at("seconds", steps) == pytest.approx([0, 11, 22])
    (tmp_path / "run" / "samples.jsonl").unlink()
    run = read_run(tmp_path / "run", "run")
    assert run.amount_at("completions", steps).tolist() == [0, 40, 80]  # by the configuration


@pytest.mark.fault("T38")
def test_states(tmp_path: Path) -> None:
    done = make_run(tmp_path / "done")
    stopped = make_run(tmp_path / "stopped", finished=False)
    failed = make_run(tmp_path / "failed", finished=False)
    (failed / "error.json").write_text('{"job": 3, "error": "`x`: is wrong"}')
    assert read_run(done, "").state == "finished"
    assert read_run(stopped, "").state == "stopped"
    assert (read_run(failed, "").state, read_run(failed, "").failure) == ("failed", "`x`: is wrong")
    code = f"from pathlib import Path\nfrom pggrpo_cli.run_directory import locked\nwith locked(Path({str(done)!r})):\n"
    holder = subprocess.Popen(
        [sys.executable, "-c", code + "    print('held', flush=True)\n    input()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(),
    )  # fmt: skip
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    assert read_run(done, "").state == "running"
    holder.kill()
    holder.communicate()
    assert not is_at_work(done)


def test_a_run_that_may_not_be_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(run_directory, "is_locked", refuse)
    run = make_run(tmp_path / "run", finished=False)
    (run / ".owner.json").write_text('{"pid": 1, "host": "elsewhere"}')
    assert is_at_work(run)
    import socket

    (run / ".owner.json").write_text(json.dumps({"pid": 2**22 - 1, "host": socket.gethostname()}))
    assert not is_at_work(run)


@pytest.mark.fault("T38")
def test_a_broken_configuration_is_said(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "config.yaml").write_text("a: [1")
    (run / "environment.json").write_text("[" * 3000)
    (run / "overrides.yaml").write_text("a: b")
    found = read_run(run, "run")
    assert found.config == {}
    assert len(found.problems) == 1
    assert "config.yaml cannot be read" in found.problems[0]
    assert str(tmp_path) not in found.problems[0]
    assert found.main_metric == "eval/reward"
    assert found.best() is not None
