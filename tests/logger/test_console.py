"""What is seen on the terminal, on every kind of terminal, whatever a model says."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console as RichConsole

from pggrpo_cli.display.chart import area, columns
from pggrpo_cli.display.live_display import LiveDisplay
from pggrpo_cli.display.panel import panel
from pggrpo_cli.display.plain_display import PlainDisplay
from pggrpo_cli.display.run_view import RunView, duration, number
from pggrpo_cli.logger.console import Console, can_redraw
from pggrpo_cli.printable import one_line, printable
from pggrpo_cli.types import RunContext

METRICS: dict[str, float | None] = {
    "reward": 0.5,
    "reward_std": 0.4,
    "kl": None,
    "entropy": 1.23,
    "clip_ratio/region_mean": 0.12,
    "completions/mean_length": 18.2,
    "completions/clipped_ratio": 0.05,
    "frac_reward_zero_std": 0.25,
    "loss": -0.0123,
    "grad_norm": 0.81,
    "learning_rate": 1.8e-5,
    "step_time": 3.2,
    "tokens_per_second": 312.4,
    "memory/peak_gb": 1.9,
    "time/rollout": 2.0,
    "time/score": 0.1,
    "time/update": 1.1,
}
HOSTILE = "[/INST] [red]hi[/] [link=x] a[/]b \x1b[2J\x1b]0;title\x07 \x9b31m \ud800 \u202e日本語 :smile: \r\n\ttab \x00"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def feed(display: LiveDisplay | PlainDisplay, clock: Clock, steps: int = 5, total: int = 10) -> None:
    display.phase("loading model")
    display.start(total, "train")
    display.message(f"plan {HOSTILE}")
    display.log(0, {"eval/reward": 0.25})
    for step in range(1, steps + 1):
        clock.now += 4
        display.phase("rollout")
        display.sample(f"<|im_start|>user\nprompt {HOSTILE}", f"completion {HOSTILE}", 1.0)
        display.phase("update")
        metrics = METRICS | {"reward": step / 10}
        display.log(step, metrics | ({"eval/reward": 0.5, "time/evaluation": 1.0} if step == 4 else {}))


def rendered(view: RunView, width: int, height: int) -> list[str]:
    output = StringIO()
    console = RichConsole(file=output, width=width, height=height, force_terminal=True, no_color=True, _environ={})
    console.print(panel(view, width, height))
    return re.sub(r"\x1b\[[0-9;]*m", "", output.getvalue()).splitlines()


def fed_view(steps: int = 5, total: int = 10) -> RunView:
    clock = Clock()
    view = RunView(clock)
    feed(LiveDisplay(RichConsole(file=StringIO()), view, show_samples=True), clock, steps, total)
    return view


@pytest.mark.parametrize("width", [36, 40, 64, 68, 80, 100, 200])
@pytest.mark.parametrize("height", [4, 10, 24, 50])
@pytest.mark.parametrize("steps", [0, 1, 5, 10])
@pytest.mark.fault("T34")
def test_the_panel_fits_every_terminal(width: int, height: int, steps: int) -> None:
    lines = rendered(fed_view(steps), width, height)
    assert len(lines) <= height
    assert {cell_len(line) for line in lines} == {width}
    assert f"step {steps}/10" in "\n".join(lines)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202e]", "\n".join(lines))


def test_the_panel_says_what_matters() -> None:
    text = "\n".join(rendered(fed_view(), 100, 30))
    for expected in (
        r"step 5/10 ",
        r"20 s · 20 s left",
        r"reward +0\.500",
        r"at first +0\.100",
        r"held out +0\.250 → 0\.500",
        r"entropy +1\.230",
        r"length +18\.2",
        r"lr +1\.8e-5",
        r"rollout 62%.*score 3%.*update 34%",
        r"completion \[/INST\] \[red\]hi\[/\]",
        r"reward 1\.000",
        r"update 0\.0 s",
    ):
        assert re.search(expected, text), (expected, text)
    assert "kl" not in text  # it was null
    assert "eval 1" not in text  # the evaluation was a step earlier


def test_the_curve_is_of_what_varies() -> None:
    view = RunView(Clock())
    view.start(3, "dpo")
    for step in (1, 2):
        view.log(step, {"reward": 0.5, "rewards/accuracies": 0.5 + step / 10, "loss": 0.6})
    assert view.main_metric == "rewards/accuracies"
    assert "accuracy" in "\n".join(rendered(view, 80, 30))


def test_columns_and_area() -> None:
    points = [(step, float(step)) for step in range(1, 5)]
    assert columns(points, 8, 8) == [1, 2, 3, 4, None, None, None, None]
    assert columns(points, 4, 8) == [1, 1, 2, 2, 3, 3, 4, 4]
    assert columns(points, 4, 2) == [1.5, 3.5]
    assert columns([], 8, 3) == [None] * 3
    long = columns([(step, 1.0) for step in range(1, 31)], 100_000, 10)
    assert long == [1.0] * 8 + [None] * 2
    assert area([0.0, 0.5, 1.0, None], 1) == ["▁▅█·"]
    assert area([0.0, 1.0, None], 2) == [" █ ", "▁█·"]
    assert area([3.0, 3.0], 1) == ["▅▅"]
    assert area([None], 1) == ["·"]


def test_numbers_are_short() -> None:
    values = [0.0, 1e-9, -1.5e-5, 0.0012, 0.5, -12.34, 999.99, 12345.6, 1e6, -1e300]
    assert [number(value) for value in values] == [
        "0.000", "1.0e-9", "-1.5e-5", "0.001", "0.500", "-12.3", "1000.0", "12346", "1.0e6", "-1.0e300",
    ]  # fmt: skip
    assert [duration(value) for value in (0, 9.94, 9.96, 59.6, 84, 3723)] == [
        "0.0 s", "9.9 s", "10 s", "1:00", "1:24", "1:02:03",
    ]  # fmt: skip


@pytest.mark.fault("T32")
def test_model_text_cannot_steer_the_terminal() -> None:
    assert printable("a\x1b[31mb\x1b[2Jc\x07\x00d\r\ne\tf\u202e\ud800") == "abcd\ne f\ufffd"
    assert printable("\x1b]0;title\x07x\x1b]8;;http://a\x1b\\y") == "xy"
    assert one_line("<|im_start|>user\n  hi <b> \n\n there<|im_end|>\n<|im_start|>assistant\n") == "hi <b> ⏎ there"
    assert one_line("<start_of_turn>model\n1 < 2 | 3 > 2<end_of_turn>") == "1 < 2 | 3 > 2"


def plain(width: int, capsys: pytest.CaptureFixture[str], steps: int = 5) -> list[str]:
    clock = Clock()
    with PlainDisplay(RunView(clock), width, show_samples=True) as display:
        feed(display, clock, steps)
    return capsys.readouterr().out.splitlines()


def test_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    lines = plain(80, capsys)
    assert lines[:2] == ["loading model …", "train: 10 steps"]
    assert [line for line in lines if line.startswith("step  4")] == [
        "step  4/10  reward 0.400  eval 0.500  len 18.2  grad 0.810  3.2 s  24 s left"
    ]
    assert len([line for line in lines if line.startswith("    <")]) == 1  # one a minute
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize("width", [40, 80])
def test_plain_lines_are_no_wider_than_the_terminal(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line for line in plain(width, capsys) if not line.startswith("plan")]
    assert max(cell_len(line) for line in lines) <= width
    assert sum(line.startswith("step") for line in lines) == 6


def test_live_leaves_the_panel_and_the_last_words() -> None:
    output = StringIO()
    console = RichConsole(file=output, width=80, height=30, force_terminal=True, no_color=True, _environ={})
    clock = Clock()
    threads = threading.active_count()
    with LiveDisplay(console, RunView(clock), show_samples=True) as display:
        feed(display, clock)
        display.message("saved in outputs/x [/INST]")
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output.getvalue())
    deadline = time.monotonic() + 5
    while threading.active_count() > threads and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == threads
    assert text.rstrip().splitlines()[-1] == "saved in outputs/x [/INST]"
    assert text.index("plan [/INST]") < text.rindex("step 5/10") < text.rindex("saved in")
    assert output.getvalue().rfind("\x1b[?25h") > output.getvalue().rfind("\x1b[?25l")


def test_style_by_terminal(monkeypatch: pytest.MonkeyPatch, context: RunContext) -> None:
    class Terminal(StringIO):
        encoding = "utf-8"

        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdout", Terminal())
    for term, columns_, expected in (
        ("xterm", "80", True),
        ("dumb", "80", False),
        ("", "80", False),
        ("xterm", "20", False),
    ):
        monkeypatch.setenv("TERM", term)
        monkeypatch.setenv("COLUMNS", columns_)
        assert can_redraw() is expected
        with Console(style="auto", samples=True).open(context) as display:
            assert isinstance(display, LiveDisplay if expected else PlainDisplay)
    monkeypatch.setattr(Terminal, "encoding", "ascii")
    monkeypatch.setenv("COLUMNS", "80")
    assert not can_redraw()
    monkeypatch.setattr(sys, "stdout", StringIO())
    with Console(style="auto", samples=False).open(context) as display:
        assert isinstance(display, PlainDisplay)


SCRIPT = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
from pggrpo_cli.logger.console import Console
with Console(style="auto", samples=True).open(SimpleNamespace()) as display:
    display.start(10, "t")
    display.log(1, {{"reward": 0.5}})
    print("ready", flush=True)
    {action}
"""


@contextmanager
def in_terminal(action: str, **environment: str) -> Iterator[tuple[subprocess.Popen[bytes], Callable[[], bytes]]]:
    main, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(action=action)],
        stdin=child,
        stdout=child,
        stderr=child,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24", "PYTHONUTF8": "1", **environment},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    )
    os.close(child)
    text = b""

    def read() -> bytes:
        nonlocal text
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            ready, _, _ = select.select([main], [], [], 0.05)
            if ready:
                try:
                    data = os.read(main, 65536)
                except OSError:
                    break
                text += data
                if b"ready" in data:
                    break
            elif process.poll() is not None:
                break
        return text

    try:
        yield process, read
    finally:
        process.kill()
        process.wait()
        os.close(main)


@pytest.mark.parametrize(
    ("action", "number_of_signal"),
    [("1 / 0", None), ("time.sleep(30)", signal.SIGINT), ("time.sleep(30)", signal.SIGKILL)],
)
def test_the_terminal_is_left_as_it_was(action: str, number_of_signal: signal.Signals | None) -> None:
    with in_terminal(action) as (process, read):
        text = read()
        assert b"ready" in text
        if number_of_signal is not None:
            process.send_signal(number_of_signal)
        text = read() if number_of_signal is None else (process.wait(20), read())[1]
        assert text.rfind(b"\x1b[?25h") > text.rfind(b"\x1b[?25l")
        assert b"\x1b[?1049h" not in text  # no alternate screen


def test_no_color_has_no_colour() -> None:
    with in_terminal("pass", NO_COLOR="1") as (_, read):
        text = read() + read()
        assert "━".encode() in text
        assert not re.search(rb"\x1b\[[0-9;]*3[0-7][;m]", text)


@pytest.mark.fault("T34")
def test_a_reader_that_goes_away_does_not_end_the_run(tmp_path: Path) -> None:
    action = 'display.log(2, {}); time.sleep(0.2); display.log(3, {}); display.log(4, {}); Path("done").write_text("x")'
    code = (
        SCRIPT.format(action=action)
        .replace('Path("done")', f'Path("{tmp_path}/done")')
        .replace("print(", "0 and print(")
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(20) == 0
    assert process.stderr.read() == b""
    process.stderr.close()
    assert (tmp_path / "done").exists()


def test_the_curve_of_a_resumed_run_begins_at_its_beginning() -> None:
    clock = Clock()
    view = RunView(clock)
    display = LiveDisplay(RichConsole(file=StringIO()), view, show_samples=True)
    display.start(10, "train")
    display.remember(0, {"eval/reward": 0.25})
    display.remember(1, {"reward": 0.1})
    display.remember(2, {"reward": 0.2})
    assert view.remaining is None  # the past says nothing of the pace
    clock.now += 4
    display.log(3, {"reward": 0.3})
    assert view.history["reward"] == [(1, 0.1), (2, 0.2), (3, 0.3)]
    assert view.history["eval/reward"] == [(0, 0.25)]
    text = "\n".join(rendered(view, 100, 30))
    assert "step 3/10" in text
    assert re.search(r"at first\s+0\.100", text)
