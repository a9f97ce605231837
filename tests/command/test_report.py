"""`pggrpo report`: where pages go, what is refused, the terminal; nothing heavy is loaded, nothing written into runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len

from pggrpo_cli.cli import main
from tests.command_line import environment, run_all
from tests.report.run_files import HOSTILE, make_run


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with outputs/: a run, and a sweep of two jobs."""
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "outputs" / "2026-11-23" / "12-00-00-train-1a2b3c", steps=10)
    for job in range(2):
        make_run(tmp_path / "outputs" / "sweeps" / "2026-11-23" / "13-00-00" / str(job), steps=5, seed=job + 1)
    return tmp_path


RUN = "outputs/2026-11-23/12-00-00-train-1a2b3c"
SWEEP = "outputs/sweeps/2026-11-23/13-00-00"


def test_pages(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / RUN / ".lock").touch()
    before = {path: path.stat().st_mtime_ns for path in (place / RUN).rglob("*") if path.name != ".lock"}
    assert main(["report", RUN]) == 0
    assert re.fullmatch(r"report.html: \d+ kB\n", capsys.readouterr().out)
    page = (place / "report.html").read_text()
    assert main(["report", "-o", "again.html", RUN]) == 0
    assert (place / "again.html").read_text() == page
    assert {path: path.stat().st_mtime_ns for path in (place / RUN).rglob("*") if path.name != ".lock"} == before
    assert (place / RUN / ".lock").exists()
    assert main(["report", SWEEP, "--output=sweep.html"]) == 0
    assert "2 runs" in (place / "sweep.html").read_text()
    assert main(["report", RUN, SWEEP, f"{SWEEP}/0", "-o", "all.html"]) == 0
    assert "3 runs" in (place / "all.html").read_text()
    capsys.readouterr()
    assert main(["report", RUN, "-o", "-"]) == 0
    assert capsys.readouterr().out == page


REFUSED = {
    "nothing given": (["-o", "x.html"], "no run is given"),
    "no such run": (["outputs/2026-11-23/12-00-00-train-1a2b3d"], f"is not there. Did you mean {RUN}"),
    "far from every run": (["nowhere"], "nowhere is not there. The newest run is outputs/"),
    "a file": (["a.txt"], "a.txt is a file"),
    "no run": (["empty"], "it holds neither config.yaml nor metrics.jsonl"),
    "several levels": (["outputs"], "several levels down"),
    "a checkpoint": ([f"{RUN}/checkpoints/step-000010"], f"give its run: pggrpo report {RUN}"),
    "unknown option": ([RUN, "--html"], "--html"),
    "option without its value": ([RUN, "-o"], "expected one argument"),
    "both": ([RUN, "--terminal", "-o", "x.html"], "`--terminal`"),
    "a folder to write to": ([RUN, "-o", "empty"], "`-o`: empty is a folder"),
    "a folder that is not there": ([RUN, "-o", "no/where.html"], "`-o`: no/where.html cannot be written: No such file"),
}


def test_refusals(place: Path) -> None:
    (place / "empty").mkdir()
    (place / "a.txt").write_text("x")
    found = run_all([["report", *words] for words, _ in REFUSED.values()], place)
    for (name, (_, said)), (code, out, err, heavy) in zip(REFUSED.items(), found, strict=True):
        assert (code, out) == (2, ""), name
        assert said in err, name
        assert err.startswith("error: "), name
        assert "Traceback" not in err, name
        assert heavy == [], name
    assert sorted(path.name for path in place.iterdir()) == ["a.txt", "empty", "outputs"]


def test_help_and_reports_load_nothing_heavy(place: Path) -> None:
    helps = [[command, "--help"] for command in ("watch", "inspect")]
    lines = [["report", "--help"], ["report"], ["report", RUN], ["report", "--terminal", SWEEP], *helps]
    found = run_all(lines, place)
    assert [code for code, _, _, _ in found] == [0, 2, 0, 0, 0, 0]
    assert [heavy for _, _, _, heavy in found] == [[]] * 6
    assert "usage: pggrpo report RUN…" in found[1][1]


def test_a_job_that_failed_before_it_began(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = place / SWEEP / "2"
    job.mkdir()
    (job / "error.json").write_text('{"job": 2, "error": "`loss.beta`: -1 is not > 0 <b>"}')
    assert main(["report", SWEEP, "-o", "-"]) == 0
    page = capsys.readouterr().out
    assert "`loss.beta`: -1 is not &gt; 0 &lt;b&gt;" in page
    assert "failed at step 0" in page


@pytest.mark.parametrize("width", [40, 80, 120])
@pytest.mark.parametrize("what", [RUN, SWEEP])
def test_terminal(
    place: Path, width: int, what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["report", what, "--terminal"]) == 0
    text = capsys.readouterr().out
    assert max(map(cell_len, text.splitlines())) <= width
    assert "held-out reward" in " ".join(text.split())
    assert "\x1b" not in text  # no terminal, no colours
    if what == RUN:
        assert "step 10/10" in text
        assert "trainer.max_steps=10" in text
        assert "best: reward" in text
    else:
        assert "all runs" in text
        assert "finished after 5 steps" in text


def test_terminal_and_hostile_text(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(place / "bad", text=HOSTILE + "{}", finished=False)
    assert main(["report", "bad", "--terminal"]) == 0
    text = capsys.readouterr().out
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", text)
    assert "[/INST] [red]x[/red]" in text
    assert "pggrpo resume bad" in text


@pytest.mark.fault("T34")
def test_terminal_that_speaks_only_ascii_or_hangs_up(place: Path) -> None:
    command = [sys.executable, "-m", "pggrpo_cli", "report", "--terminal", RUN]
    plain = environment() | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(command, capture_output=True, cwd=place, env=plain, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"step 10/10" in done.stdout
    coloured = environment() | {"FORCE_COLOR": "1"}
    done = subprocess.run(command, capture_output=True, cwd=place, env=coloured, timeout=60)
    assert b"\x1b[" in done.stdout
    done = subprocess.run(command, capture_output=True, cwd=place, env=coloured | {"NO_COLOR": "1"}, timeout=60)
    assert not re.search(rb"\x1b\[[0-9;]*3[0-7][;m]", done.stdout)
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*command[:-2], "-o", "-", RUN], stdout=writer, stderr=subprocess.PIPE, cwd=place, env=plain, timeout=60
    )
    os.close(writer)
    assert b"Traceback" not in done.stderr


def test_a_run_is_only_read(place: Path) -> None:
    def state() -> dict[str, tuple[int, int]]:
        files = ((place / RUN), *(place / RUN).rglob("*"))
        return {str(file): (file.stat().st_mtime_ns, file.stat().st_size) for file in files}

    before = state()
    assert main(["report", RUN, "-o", "x.html"]) == 0
    assert state() == before
