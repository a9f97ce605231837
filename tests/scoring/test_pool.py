"""Rewards in processes of their own, against real processes: what hangs, dies or misbehaves harms its own score only."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from pggrpo_cli.errors import ConfigError, DataError, UserCodeError
from pggrpo_cli.scoring.answers import Answers
from pggrpo_cli.scoring.output import LIMIT, Output
from pggrpo_cli.scoring.pool import IsolatedReward, Pool
from pggrpo_cli.types import RewardContext, Sample, ScoreError
from tests.command_line import ROOT

SOURCE = """
import ctypes, os, random, sys, time, threading

def good(completions): return [float(len(c)) for c in completions]
def busy(completions):
    while True: pass
def asleep(completions): time.sleep(600)
def in_c(completions): return [1.0 if __import__("re").match(r"(a+)+$", "a" * 40 + "b") else 0.0]
def signalled(completions): os.kill(os.getpid(), 9)
def segfault(completions): ctypes.string_at(0)
def exits(completions): os._exit(3)
def leaves(completions): sys.exit("bye")
def chatty(completions):
    print("x" * 3_000_000); os.write(2, b"y" * 100_000); return [1.0] * len(completions)
def says(completions): print("hello"); return [1.0] * len(completions)
def moves(completions): os.chdir("/"); return [1.0] * len(completions)
def where(completions): return [float(os.getcwd() == "/")] * len(completions)
def forks(completions):
    os.fork()
    return [1.0] * len(completions)
def children(completions):
    import subprocess
    subprocess.Popen(["sleep", "600"]); time.sleep(600)
def closes(completions): os.close(1); os.close(2); return [1.0] * len(completions)
def draws(completions): return [random.random() for _ in completions]
def process(completions): return [float(os.getpid())] * len(completions)
def slowly(completions): time.sleep(0.5); return [float(os.getpid())] * len(completions)
def mutates(prompts, completions, words):
    for one in words: one.append("more")
    return [float(len(one)) for one in words]
def dates(completions, when): return [float(w.year) for w in when]
async def later(completions): return [2.0] * len(completions)
async def waits(completion):
    import asyncio
    await asyncio.sleep(0.5)
    return 2.0
async def never(completion):
    import asyncio
    await asyncio.sleep(600)
async def never_together(completions):
    import asyncio
    await asyncio.Event().wait()
async def stuck(completion):
    time.sleep(600)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    return path


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    with Pool(1, RewardContext(run_dir=tmp_path, device="cpu", seed=1), Output(tmp_path)) as pool:
        yield pool


@pytest.fixture
def ask(pool: Pool, file: Path) -> Callable[..., Answers]:
    def ask(name: str, *texts: str, timeout_s: float | None = 30.0, **columns: Any) -> Answers:
        node = {"_target_": "pggrpo_cli.reward.python.Python", "path": str(file), "name": name, "weight": 1.0}
        samples = [
            Sample(prompt="p", completion=text, completion_ids=[1], finish_reason="stop", columns=columns)
            for text in texts or ("ab",)
        ]
        return pool.submit(IsolatedReward(name=name, node=node, timeout_s=timeout_s), samples).result(60)

    return ask


def message(answers: Answers) -> str:
    (error,) = answers.answers
    assert isinstance(error, ScoreError)
    return error.message


def test_scores_come_back(ask: Callable[..., Answers]) -> None:
    assert ask("good", "a", "bcd").answers == [1.0, 3.0]
    assert ask("later", "a", "b").answers == [2.0, 2.0]


def test_async_functions_of_one_call_wait_together(ask: Callable[..., Answers]) -> None:
    ask("good")
    started = time.monotonic()
    answers = ask("waits", *("x" * 8))
    assert answers.answers == [2.0] * 8
    assert 0.5 <= answers.seconds < 2.0
    assert time.monotonic() - started < 3.0


def test_what_it_prints_before_it_answers_is_there(file: Path) -> None:
    node = {"_target_": "pggrpo_cli.reward.python.Python", "path": str(file), "name": "says"}
    sample = Sample(prompt="p", completion="c", completion_ids=[1], finish_reason="stop", columns={})
    with Pool(1, RewardContext(run_dir=None, device="cpu", seed=1), Output(None)) as pool:
        assert pool.submit(IsolatedReward(name="says", node=node, timeout_s=30), [sample]).result(60).answers == [1.0]
        assert pool.printed == "hello\n"


@pytest.mark.fault("T13")
@pytest.mark.parametrize("name", ["busy", "asleep", "in_c", "children", "never", "never_together", "stuck"])
def test_what_hangs_is_killed_and_replaced(ask: Callable[..., Answers], pool: Pool, name: str) -> None:
    ask("good")
    (before,) = pool.pids()
    started = time.monotonic()
    assert message(ask(name, timeout_s=0.5)) == "took longer than timeout_s=0.5 seconds"
    assert time.monotonic() - started < 10
    assert not psutil.pid_exists(before) or psutil.Process(before).status() == psutil.STATUS_ZOMBIE
    assert ask("good").answers == [2.0]
    assert pool.pids() != [before]


@pytest.mark.fault("T12")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("signalled", "died: SIGKILL"),
        ("segfault", "died: SIGSEGV"),
        ("exits", "ended its process with exit code 3"),
        ("leaves", "raised SystemExit: bye"),
    ],
)
def test_what_dies_is_replaced(ask: Callable[..., Answers], name: str, words: str) -> None:
    assert message(ask(name)) == words
    assert ask("good").answers == [2.0]


@pytest.mark.fault("T12")
def test_a_crash_in_c_tells_where(ask: Callable[..., Answers]) -> None:
    (error,) = ask("segfault").answers
    assert isinstance(error, ScoreError)
    assert "Segmentation fault" in error.traceback
    assert "in segfault" in error.traceback


@pytest.mark.fault("T15")
def test_what_it_prints_is_kept_apart_and_limited(
    ask: Callable[..., Answers], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert ask("chatty").answers == [1.0]
    assert ask("chatty").answers == [1.0]
    assert LIMIT <= (tmp_path / "rewards.log").stat().st_size < LIMIT + 100
    assert capfd.readouterr() == ("", "")


@pytest.mark.fault("T15")
def test_it_may_do_to_its_process_what_it_likes(ask: Callable[..., Answers]) -> None:
    assert ask("moves").answers == [1.0]
    assert ask("where").answers == [0.0]
    assert ask("forks").answers == [1.0]
    assert ask("good").answers == [2.0]
    assert ask("closes").answers == [1.0]
    assert ask("good", "abc").answers == [3.0]


@pytest.mark.fault("T15")
def test_its_random_numbers_are_its_own_and_repeat(ask: Callable[..., Answers]) -> None:
    random.seed(3)
    state = random.getstate()
    first = ask("draws", "a", "b").answers
    assert ask("draws", "a", "b").answers == first
    assert ask("draws", "a", "c").answers != first
    assert random.getstate() == state


@pytest.mark.fault("T15")
def test_it_cannot_change_the_data(ask: Callable[..., Answers]) -> None:
    words = ["one"]
    assert ask("mutates", words=words).answers == [2.0]
    assert words == ["one"]


def test_columns_keep_their_types(ask: Callable[..., Answers]) -> None:
    import datetime

    assert ask("dates", when=datetime.date(2026, 1, 2)).answers == [2026.0]
    with pytest.raises(DataError, match=r"a column holds .*object"):
        ask("dates", when=object())


@pytest.mark.fault("T12")
def test_what_is_no_fault_of_a_completion_ends_the_run(pool: Pool, file: Path) -> None:
    def submit(name: str, path: str) -> None:
        node = {"_target_": "pggrpo_cli.reward.python.Python", "path": path, "name": name}
        sample = Sample(prompt="p", completion="c", completion_ids=[1], finish_reason="stop", columns={})
        pool.submit(IsolatedReward(name=name, node=node, timeout_s=5), [sample]).result(60)

    with pytest.raises(ConfigError, match=r"`reward.python.path`: there is no file"):
        submit("good", "nowhere.py")
    with pytest.raises(UserCodeError, match=r"asks for 'when', which is no column"):
        submit("dates", str(file))


def test_calls_run_side_by_side(file: Path, tmp_path: Path) -> None:
    node = {"_target_": "pggrpo_cli.reward.python.Python", "path": str(file), "name": "slowly"}
    reward = IsolatedReward(name="slowly", node=node, timeout_s=30)
    sample = Sample(prompt="p", completion="c", completion_ids=[1], finish_reason="stop", columns={})
    with Pool(3, RewardContext(run_dir=None, device="cpu", seed=1), Output(None)) as pool:
        futures = [pool.submit(reward, [sample]) for _ in range(6)]
        pids = {future.result(60).answers[0] for future in futures}
        assert 2 <= len(pids) <= 3
        children = [psutil.Process(pid) for pid in pool.pids()]
    _, alive = psutil.wait_procs(children, timeout=10)  # they are killed, which takes a moment on a busy machine
    assert not alive


@pytest.mark.fault("T13")
def test_nothing_is_left_when_the_trainer_is_killed(file: Path) -> None:
    trainer = f"""
import sys, time
from pggrpo_cli.scoring.output import Output
from pggrpo_cli.scoring.pool import IsolatedReward, Pool
from pggrpo_cli.types import RewardContext, Sample
node = {{"_target_": "pggrpo_cli.reward.python.Python", "path": {str(file)!r}, "name": "children"}}
sample = Sample(prompt="p", completion="c", completion_ids=[1], finish_reason="stop", columns={{}})
with Pool(1, RewardContext(run_dir=None, device="cpu", seed=1), Output(None)) as pool:
    pool.submit(IsolatedReward(name="r", node=node, timeout_s=None), [sample])
    while not pool.pids(): time.sleep(0.01)
    print(pool.pids()[0], flush=True)
    time.sleep(600)
"""
    started = subprocess.Popen(
        [sys.executable, "-c", trainer], stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert started.stdout is not None
    worker = psutil.Process(int(started.stdout.readline()))
    deadline = time.monotonic() + 30
    while not worker.children() and time.monotonic() < deadline:
        time.sleep(0.05)
    family = [worker, *worker.children()]
    assert len(family) == 2
    started.send_signal(signal.SIGKILL)
    started.wait()
    started.stdout.close()
    gone, alive = psutil.wait_procs(family, timeout=10)
    assert len(gone) == 2, alive
