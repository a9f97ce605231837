"""GPUs and threads of several jobs at a time."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pggrpo_cli.scoring.pool import default_workers
from pggrpo_cli.sweep import shares as module
from pggrpo_cli.sweep.shares import Shares, shares, visible_gpus
from tests.command_line import make_checkpoint


@pytest.mark.parametrize(
    ("named", "found"),
    [
        ("0,1", ("0", "1")),
        ("3", ("3",)),
        ("", ()),
        ("-1", ()),
        ("0, 2,-1,3", ("0", "2")),
        ("GPU-8a,MIG-7", ("GPU-8a", "MIG-7")),
    ],
)
def test_gpus_that_a_variable_names(named: str, found: tuple[str, ...]) -> None:
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": named}) == found


def test_gpus_that_the_driver_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible_gpus({}) == ()
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: H100 (UUID: GPU-1)'\necho 'GPU 1: H100 (UUID: GPU-2)'\n")
    program.chmod(0o755)
    assert visible_gpus({}) == ("0", "1")
    program.write_text("#!/bin/sh\necho 'No devices were found'\nexit 6\n")
    assert visible_gpus({}) == ()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two GPUs, eight processors."""
    monkeypatch.setattr(module, "visible_gpus", lambda: ("0", "1"))
    monkeypatch.setattr(module, "default_workers", lambda: 8)
    for name in module.THREADS:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("wish", "jobs", "devices", "expected"),
    [
        (None, 9, {"auto"}, (2, ("0", "1"), 4)),
        (None, 1, {"auto", "cuda"}, (1, ("0", "1"), 8)),
        (4, 9, {"cuda"}, (4, ("0", "1"), 2)),
        (None, 9, {"cpu"}, (1, (), 8)),
        (3, 9, {"cpu"}, (3, (), 2)),
        (99, 9, {"cpu"}, (9, (), 1)),
        (None, 9, {"cuda:1"}, (1, (), 8)),  # one GPU was chosen for all: it must not be renumbered
    ],
)
def test_how_many_at_a_time(
    wish: int | None, jobs: int, devices: set[str], expected: tuple[int, tuple[str, ...], int]
) -> None:
    found = shares(wish, jobs, devices)
    assert (found.at_a_time, found.gpus, found.threads) == expected


@pytest.mark.usefixtures("machine")
@pytest.mark.fault("T35")
def test_the_variables_of_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    four = Shares(at_a_time=4, gpus=("0", "1"), threads=2)
    assert [four.environment(slot, tmp_path)["CUDA_VISIBLE_DEVICES"] for slot in range(4)] == ["0", "1", "0", "1"]
    threads = dict.fromkeys(module.THREADS, "2")
    assert four.environment(0, tmp_path) == {"CUDA_VISIBLE_DEVICES": "0", **threads, "PGGRPO_PROCESSORS": "2"}
    monkeypatch.setenv("OMP_NUM_THREADS", "6")  # whoever sets it means it
    assert "OMP_NUM_THREADS" not in four.environment(0, tmp_path)
    monkeypatch.delenv("OMP_NUM_THREADS")
    alone = Shares(at_a_time=1, gpus=(), threads=8)
    assert alone.environment(0, tmp_path) == {}
    (tmp_path / "environment.json").write_text(json.dumps({"threads": {"torch": 3}}))
    assert alone.environment(0, tmp_path) == {}  # nothing to go on from
    make_checkpoint(tmp_path)
    assert alone.environment(0, tmp_path)["OMP_NUM_THREADS"] == "3"


def test_processes_for_rewards_are_divided_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGGRPO_PROCESSORS", raising=False)
    assert default_workers() == len(os.sched_getaffinity(0))
    monkeypatch.setenv("PGGRPO_PROCESSORS", "1")
    assert default_workers() == 1
    monkeypatch.setenv("PGGRPO_PROCESSORS", "many")
    assert default_workers() == len(os.sched_getaffinity(0))
