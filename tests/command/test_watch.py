"""`pggrpo watch`: a run in another process, followed line by line until it ends."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pggrpo_cli.cli import main
from pggrpo_cli.command.watch import Follower, RunClock
from pggrpo_cli.display.plain_display import PlainDisplay
from pggrpo_cli.display.run_view import RunView
from pggrpo_cli.following import Following
from tests.command_line import environment
from tests.report.run_files import make_run, metrics_of, samples_of, write_lines

WRITER = """
import json, sys, time
from pathlib import Path
from pggrpo_cli.run_directory import locked, save_finished
from tests.report.run_files import metrics_of, samples_of
run, ending = Path(sys.argv[1]), sys.argv[2]
with locked(run):
    print("held", flush=True)
    input()
    for step in range(4, 8):
        with open(run / "samples.jsonl", "a") as out:
            out.writelines(json.dumps(one) + "\\n" for one in samples_of(step))
        text = json.dumps(metrics_of(step)) + "\\n"
        with open(run / "metrics.jsonl", "a") as out:
            out.write(text[:40])
            out.flush()
            time.sleep(0.1)
            out.write(text[40:])
        time.sleep(0.4)
    if ending == "finished":
        save_finished(run, 7)
    elif ending == "killed":
        import os
        os.kill(os.getpid(), 9)
    else:
        input()
"""


def writer(run: Path, ending: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(run), ending],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def go(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.flush()


def watcher(*words: str, folder: Path, stdout: int = subprocess.PIPE) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pggrpo_cli", "watch", *words]
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment() | {"TERM": "xterm"},
        stdout=stdout,
        stderr=subprocess.PIPE,
        # A shell that runs the tests in the background has SIGINT ignored, and so would have what they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    )


@pytest.mark.parametrize("ending", ["finished", "killed"])
def test_it_follows_to_the_end(tmp_path: Path, ending: str) -> None:
    run = make_run(tmp_path / "outputs" / "day" / "run", steps=3, finished=False)
    make_run(tmp_path / "outputs" / "day" / "older", steps=3)
    for file in (tmp_path / "outputs" / "day" / "older").iterdir():
        os.utime(file, (1e9, 1e9))
    process = writer(run, ending)
    watching = watcher(folder=tmp_path)
    assert watching.stdout is not None
    assert watching.stdout.readline() == b"watching outputs/day/run\n"
    go(process)
    out, err = watching.communicate(timeout=60)
    process.communicate(timeout=60)
    text = out.decode()
    assert (watching.returncode, err) == (0, b"")
    for step in range(4, 8):
        assert f"step   {step}/100  reward {metrics_of(step)['reward']:.3f}" in text
    assert "question 0?" in text
    assert (
        "is finished, after step 7" if ending == "finished" else "stopped after step 7; nothing works on it"
    ) in text
    assert ("pggrpo resume outputs/day/run" in text) == (ending == "killed")


def test_a_terminal_shows_the_panel_and_ctrl_c_ends_only_the_watching(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", steps=3, finished=False)
    process = writer(run, "waits")
    main_end, child = pty.openpty()
    watching = watcher("run", folder=tmp_path, stdout=child)
    os.close(child)
    go(process)
    text, deadline = b"", time.monotonic() + 60
    while b"step 7/100" not in text and time.monotonic() < deadline:
        if select.select([main_end], [], [], 0.1)[0]:
            text += os.read(main_end, 65536)
    watching.send_signal(signal.SIGINT)
    time.sleep(0.3)
    text += os.read(main_end, 1 << 20)
    assert watching.wait(30) == 0
    assert b"held out" in text
    assert "━".encode() in text
    assert text.rfind(b"\x1b[?25h") > text.rfind(b"\x1b[?25l")
    assert process.poll() is None
    process.kill()
    process.communicate()
    os.close(main_end)


def test_a_run_that_has_ended_is_shown_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "run", steps=10)
    assert main(["watch", "run"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "train: 10 steps"
    assert said[1].startswith(f"step 10/10  reward {metrics_of(10)['reward']:.3f}")
    assert said[-1] == "run is finished, after step 10"


def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    for job in range(2):
        make_run(tmp_path / "sweep" / str(job), steps=1)
    without = make_run(tmp_path / "without", steps=1)
    (without / "config.yaml").unlink()
    for words, said in (
        ([], "no run below"),
        (["nowhere"], "nowhere is not there"),
        (["sweep"], "holds 2 runs; one is watched at a time, such as sweep/1"),
        (["sweep/0", "sweep/1"], "one run is watched at a time"),
        (["--follow"], "no such option"),
        (["without"], "config.yaml"),
    ):
        assert main(["watch", *words]) == 2, words
        assert said in capsys.readouterr().err, words


def test_the_past_tells_the_pace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run", steps=4)
    now = [1000.0]
    clock = RunClock(lambda: now[0])
    view = RunView(clock)
    view.start(10, "run")
    with PlainDisplay(view, 160, show_samples=True) as display:
        Follower(run, display, view, clock).catch_up()
    assert view.step == 4
    assert view.elapsed == pytest.approx(4 * 2.1 + 0.5)
    assert view.remaining == pytest.approx(6 * 2.1, rel=0.1)  # an evaluation was among them
    now[0] += 3.0
    assert view.elapsed == pytest.approx(4 * 2.1 + 3.5)
    assert capsys.readouterr().out.count("step ") == 1  # the past is not told again


def test_following_gives_whole_lines_once(tmp_path: Path) -> None:
    file = tmp_path / "lines"
    following = Following(file)
    assert list(following.new()) == []
    write_lines(file, [{"step": 1}, {"step": 2}])
    with open(file, "a") as out:
        out.write('broken\n[1]\n{"step": 3')
    assert [one["step"] for one in following.new()] == [1, 2]
    with open(file, "a") as out:
        out.write("3}\n")
    assert [one["step"] for one in following.new()] == [33]
    assert list(following.new()) == []
    write_lines(file, [{"step": 1}])  # cut back by a resume
    assert list(following.new()) == []
    with open(file, "a") as out:
        out.write(json.dumps({"step": 2}) + "\n")
    assert [one["step"] for one in following.new()] == [2]


def test_following_from_near_the_end(tmp_path: Path) -> None:
    file = tmp_path / "samples.jsonl"
    write_lines(file, [line for step in range(1, 30) for line in samples_of(step)])
    found = list(Following(file, last_bytes=1000).new())
    assert 1 <= len(found) <= 10
    assert found[-1] == samples_of(29)[-1]
