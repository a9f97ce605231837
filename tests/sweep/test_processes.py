"""What is kept of a process's last words."""

from __future__ import annotations

import errno
import sys
from pathlib import Path

import psutil
import pytest

from pggrpo_cli.scoring.reaper import Reaper
from pggrpo_cli.sweep.job import note_failure
from pggrpo_cli.sweep.processes import LONGEST, Ended, Order, Processes, last_words


class Silent:
    def __init__(self) -> None:
        self.most = self.now = 0
        self.order: list[int] = []

    def began(self, number: int) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        self.order.append(number)

    def ended(self, ended: Ended, *, asked: bool) -> None:
        self.now -= 1

    def look(self) -> None: ...

    def stopping(self, running: int) -> None: ...


def test_so_many_at_a_time_each_in_its_slot(tmp_path: Path) -> None:
    code = "import os, sys, time; time.sleep(0.1); print(os.environ['SLOT']); sys.exit(int(sys.argv[1]))"
    orders = [
        Order(
            number=number,
            command=[sys.executable, "-I", "-S", "-c", code, str(number)],
            folder=tmp_path / str(number),
            working_folder=lambda: str(tmp_path),
            environment=lambda slot: {"SLOT": str(slot)},
        )
        for number in range(5)
    ]
    watcher = Silent()
    ended = Processes(2, watcher).run(orders)
    assert (watcher.most, watcher.now, watcher.order) == (2, 0, [0, 1, 2, 3, 4])
    assert sorted((one.number, one.code) for one in ended) == [(number, number) for number in range(5)]
    assert {one.words for one in ended} == {"0", "1"}  # slots are used again


def test_one_that_cannot_be_started_ends_no_other(tmp_path: Path) -> None:
    (tmp_path / "0").touch()
    orders = [
        Order(
            number=number,
            command=[sys.executable, "-I", "-S", "-c", "print('done')"],
            folder=tmp_path / str(number),
            working_folder=lambda: str(tmp_path),
            environment=lambda slot: {},
        )
        for number in range(2)
    ]
    watcher = Silent()
    ended = Processes(1, watcher).run(orders)
    said = f"it could not be started: {tmp_path / '0'}: File exists"
    assert [(one.number, one.code, one.words) for one in ended] == [(0, 2, said), (1, 0, "done")]
    assert watcher.order == [1]


def test_a_note_that_the_disk_refuses_is_only_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "7").touch()
    note_failure(tmp_path / "7", 7, "seed=1", 3, "NaN")
    assert capsys.readouterr().err.startswith("warning: what job 7 failed with cannot be noted in ")


def test_a_process_that_nobody_would_watch_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reaper was killed: the job must not run on when the sweep is gone."""
    started: list[int] = []

    def refuse(reaper: Reaper, group: int) -> None:
        started.append(group)
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(Reaper, "watch", refuse)
    order = Order(
        number=0,
        command=[sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"],
        folder=tmp_path,
        working_folder=lambda: str(tmp_path),
        environment=lambda slot: {},
    )
    watcher = Silent()
    (ended,) = Processes(1, watcher).run([order])
    assert (ended.code, ended.words) == (2, "it could not be started: Broken pipe")
    assert not psutil.pid_exists(started[0])


def test_last_words(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    assert last_words(log, 0) == ""
    log.write_text("error: of an earlier session\n")
    begin = log.stat().st_size
    assert last_words(log, begin) == ""
    with open(log, "a") as file:
        file.write("step 1\nerror: first\nerror: `loss.beta`: is wrong.\n  Give another.\n\n")
    assert last_words(log, begin) == "`loss.beta`: is wrong.   Give another."
    log.write_text(
        "Fatal Python error: init_fs_encoding: no codec\nThread 0x7f (most recent call first):\n  <no Python frame>\n"
    )
    assert last_words(log, 0) == "Fatal Python error: init_fs_encoding: no codec"
    log.write_text("ValueError: no\nerror: `loss.beta`: is wrong.\n")
    assert last_words(log, 0) == "`loss.beta`: is wrong."
    log.write_bytes(b"x" * 100_000 + b"\n" + "é".encode() * 2000 + b"\n\xff last")
    assert last_words(log, 0) == "� last"
    log.write_text("y" * 100_000)
    assert last_words(log, 0) == "y" * (LONGEST - 1) + "…"
