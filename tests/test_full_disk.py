"""Disks that are full, small or read-only: said before the first step where it can be foreseen; training goes on where
nothing is lost by it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pggrpo_cli import saving
from pggrpo_cli.assemble import find_checkpoint, run_training
from pggrpo_cli.checkpoint import save_checkpoint
from pggrpo_cli.errors import CheckpointError, ConfigError
from pggrpo_cli.interruption import Interruption
from tests.command_line import run
from tests.test_exact_resume import config, fingerprint

LINE = ["loss=pg_grpo", "sampler.max_new_tokens=6", "checkpoint.every=1", "checkpoint.keep_last=1"]


def refusing(monkeypatch: pytest.MonkeyPatch, steps: set[int]) -> None:
    def save(folder: Path, step: int, **options: Any) -> Path:
        if step in steps:
            raise CheckpointError(f"`checkpoint`: step {step} could not be saved: the disk is full.")
        return save_checkpoint(folder, step, **options)

    monkeypatch.setattr(saving, "save_checkpoint", save)


@pytest.mark.fault("T6")
def test_a_checkpoint_that_cannot_be_written_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, scarce = tmp_path / "whole", tmp_path / "scarce"
    for folder in (whole, scarce):
        folder.mkdir()
    run_training(config(LINE, 4), whole, None, Interruption())
    refusing(monkeypatch, {2, 3})
    run_training(config([*LINE, "logger=[console]"], 4), scarce, None, Interruption())
    said = capsys.readouterr().out
    assert "step 2 could not be saved" in said
    assert "step 3 could not be saved" in said
    assert "Training goes on" in said
    expected, found = fingerprint(whole), fingerprint(scarce)
    for both in (expected, found):
        both["progress"].pop("best")  # of a step that could not be saved it cannot be
    assert found == expected


@pytest.mark.fault("T6")
def test_the_best_is_one_that_was_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the best of a refused save remembered, no later one would be kept, and none would be there."""
    refusing(monkeypatch, {2})
    values = iter([0.1, 0.9, 0.5])
    monkeypatch.setattr(
        "pggrpo_cli.evaluation.Evaluation.run", lambda self, policy, step: ({"eval/reward": next(values)}, [])
    )
    run_training(config([*LINE, "checkpoint.every=null"], 4), tmp_path, None, Interruption())
    progress = json.loads((tmp_path / "checkpoints" / "step-000004" / "state.json").read_text())["progress"]
    assert progress["best"] == {"step": 4, "value": 0.5}


@pytest.mark.fault("T6")
def test_the_last_checkpoint_must_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing(monkeypatch, {4})
    with pytest.raises(CheckpointError, match="step 4 could not be saved"):
        run_training(config(LINE, 4), tmp_path, None, Interruption())
    assert not (tmp_path / "finished.json").exists()
    monkeypatch.undo()
    run_training(config(LINE, 4), tmp_path, find_checkpoint(tmp_path), Interruption())


@pytest.mark.fault("T6")
def test_a_disk_too_small_is_said_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def disk(free: int) -> None:
        usage = shutil._ntuple_diskusage(1 << 40, 0, free)  # type: ignore[attr-defined]
        monkeypatch.setattr(saving.shutil, "disk_usage", lambda path: usage)

    disk(1000)
    with pytest.raises(ConfigError, match=r"`checkpoint`: 0\.00 GB are free .* the weights alone take"):
        run_training(config(LINE, 4), tmp_path, None, Interruption())
    assert not (tmp_path / "checkpoints").exists()
    leftover = tmp_path / "checkpoints" / ".tmp-step-000001-7" / "model.safetensors"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"x" * 10_000_000)  # what a killed save left is room to come
    run_training(config(LINE, 1), tmp_path, None, Interruption())
    monkeypatch.undo()
    weights = (tmp_path / "checkpoints" / "step-000001" / "model.safetensors").stat().st_size
    capsys.readouterr()
    disk(2 * weights)
    (tmp_path / "warned").mkdir()
    run_training(config(LINE, 1), tmp_path / "warned", None, Interruption())
    assert "may be needed" in capsys.readouterr().err


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of one megabyte; only root can make one."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        missing = f"cannot mount a file system: {mounted.stderr.decode().strip()}"
        if os.environ.get("CI") and os.geteuid() == 0:
            pytest.fail(missing)
        pytest.skip(missing)
    yield place
    subprocess.run(["umount", str(place)], check=True)


COMMAND = ["train", "debug=fast", "trainer.max_steps=3", "hydra.run.dir=disk/run", "checkpoint.every=1"]


@pytest.mark.slow
@pytest.mark.fault("T6")
def test_a_real_disk_that_fills_up(small_disk: Path, tmp_path: Path) -> None:
    """Something else fills it while the run is going on; when there is room again, it goes on."""
    (tmp_path / "mine.py").write_text(
        "import os\n"
        "def fills(completions):\n"
        "    if len(os.listdir('disk/run/checkpoints')) if os.path.isdir('disk/run/checkpoints') else 0:\n"
        "        with open('disk/other', 'wb', buffering=0) as file:\n"
        "            try:\n"
        "                while file.write(b'x' * 4096): pass\n"
        "            except OSError: pass\n"
        "    return [float(len(text)) for text in completions]\n"
    )
    reward = ["reward=python", "reward.python.path=mine.py", "reward.python.name=fills", "evaluation.every=null"]
    done = run([*COMMAND, *reward, "checkpoint.keep_last=9"], tmp_path)
    assert done.returncode == 4, done.stdout + done.stderr
    assert "the disk is full" in done.stdout + done.stderr
    assert [path.name for path in (small_disk / "run" / "checkpoints").iterdir()] == ["step-000001"]
    (small_disk / "other").unlink()
    (tmp_path / "mine.py").write_text("def fills(completions): return [float(len(text)) for text in completions]")
    subprocess.run(["mount", "-o", "remount,size=50m", str(small_disk)], check=True)
    went_on = run(["resume", "disk/run", "security.allow_targets=[pggrpo_cli.reward.python.Python]"], tmp_path)
    assert went_on.returncode == 0, went_on.stderr
    steps = [json.loads(line)["step"] for line in (small_disk / "run" / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3]


@pytest.mark.slow
@pytest.mark.fault("T7")
def test_a_disk_that_is_read_only(small_disk: Path, tmp_path: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    refused = run(COMMAND, tmp_path)
    assert refused.returncode == 2, refused.stderr
    assert "hydra.run.dir" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert os.listdir(small_disk) == []


def fill(disk: Path) -> Path:
    file = disk / "other"
    with open(file, "wb", buffering=0) as stream, contextlib.suppress(OSError):
        while stream.write(b"x" * 4096):
            pass
    return file


@pytest.mark.slow
@pytest.mark.fault("T6")
def test_a_disk_that_is_full_from_the_start_or_at_a_resume(small_disk: Path, tmp_path: Path) -> None:
    file = fill(small_disk)
    refused = run(COMMAND, tmp_path)
    assert refused.returncode == 2, refused.stderr
    assert "`hydra.run.dir`: disk/run cannot be written: No space left on device" in refused.stderr
    assert "Traceback" not in refused.stderr
    file.unlink()
    assert not list(small_disk.iterdir()) or os.listdir(small_disk) == ["run"]
    subprocess.run(["mount", "-o", "remount,size=50m", str(small_disk)], check=True)
    assert run([*COMMAND, "resume.from=auto"], tmp_path).returncode == 0
    fill(small_disk)
    before = {path: path.read_bytes() for path in (small_disk / "run").rglob("*.json*") if path.name != ".owner.json"}
    refused = run(["resume", "disk/run", "trainer.max_steps=5"], tmp_path)
    assert refused.returncode == 2, refused.stderr
    assert "Traceback" not in refused.stderr
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.fault("T6")
def test_a_disk_that_is_full_after_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run is done: that only its mark cannot be written is a warning, and no half a mark is left."""

    def full(file: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pggrpo_cli.run_directory.write_whole", full)
    run_training(config(LINE, 1), tmp_path, None, Interruption())
    assert "finished.json cannot be written (No space left on device)" in capsys.readouterr().err
    assert not (tmp_path / "finished.json").exists()


@pytest.mark.fault("T7")
def test_a_run_directory_that_vanishes(tmp_path: Path) -> None:
    """Somebody deletes it: the run says so instead of building up an empty one."""
    (tmp_path / "mine.py").write_text(
        "import shutil\n"
        "calls = []\n"
        "def vanishes(completions):\n"
        "    calls.append(1)\n"
        "    if len(calls) == 4: shutil.rmtree('disk')\n"
        "    return [float(len(text)) for text in completions]\n"
    )
    reward = ["reward=python", "reward.python.path=mine.py", "reward.python.name=vanishes", "evaluation.every=null"]
    ended = run([*COMMAND, *reward, "trainer.max_steps=6", "checkpoint.every=5", "data.eval_size=0"], tmp_path)
    assert ended.returncode == 4, ended.stderr
    assert "was deleted while the run wrote to it" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "disk" / "run" / "checkpoints").exists()
