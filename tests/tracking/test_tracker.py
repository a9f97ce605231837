"""A tracker in a process of its own: what reaches it, and that nothing it does reaches the run."""

from __future__ import annotations

import json
import signal
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from pggrpo_cli.errors import ConfigError, StoppedEarly
from pggrpo_cli.logger.wandb import Wandb
from pggrpo_cli.tracking import tracker as tracking
from pggrpo_cli.tracking.packages import check_packages
from pggrpo_cli.types import RunContext
from tests.tracking.fake_library import Fake, save_config

SETTINGS = {"project": "p", "entity": None, "tags": [], "sample_every": None}


@pytest.fixture
def fake(tmp_path: Path, context: RunContext, monkeypatch: pytest.MonkeyPatch) -> Fake:
    save_config(context.run_dir)
    return Fake(tmp_path, monkeypatch)


def logger(mode: str = "offline", close_seconds: float = 10) -> Wandb:
    return Wandb(mode=mode, close_seconds=close_seconds, **SETTINGS)  # type: ignore[arg-type]


def log_steps(wandb: Wandb, context: RunContext, steps: range = range(1, 4)) -> float:
    """Seconds that the slowest step took, without the first, which starts the process."""
    slowest = 0.0
    with wandb.open(context) as opened:
        for step in steps:
            started = time.monotonic()
            opened.log(step, {"reward": step / 4, "kl": None})
            slowest = max(slowest, time.monotonic() - started if step > steps[0] else 0.0)
    return slowest


def test_steps_reach_it_in_order_and_nothing_is_printed(
    fake: Fake, context: RunContext, capfd: pytest.CaptureFixture[str]
) -> None:
    assert log_steps(logger(), context) < 0.1
    assert fake.calls("log") == [[1, ["reward"]], [2, ["reward"]], [3, ["reward"]]]
    assert fake.calls("finish") == [[0]]
    assert fake.calls("settings") == [["off"]]
    assert capfd.readouterr() == ("", "")
    assert "printed on stdout" in (context.run_dir / "wandb.log").read_text()
    assert "wandb" not in sys.modules


def test_a_resumed_run_is_the_same_one_and_no_step_comes_twice(fake: Fake, context: RunContext) -> None:
    with suppress(StoppedEarly), logger().open(context) as opened:
        for step in (1, 2, 3):
            opened.log(step, {"reward": 0.0})
        raise StoppedEarly("a signal")
    with logger().open(replace(context, resumed=True)) as opened:
        for step in (1, 2):  # the checkpoint's past
            opened.remember(step, {"reward": 0.0})  # type: ignore[attr-defined]
        for step in (3, 4):
            opened.log(step, {"reward": 1.0})
    assert [step for step, _ in fake.calls("log")] == [1, 2, 3, 4]
    assert fake.calls("init")[0][0] == fake.calls("init")[1][0]
    assert fake.calls("finish") == [[1], [0]]


def test_a_tracker_that_is_new_to_a_run_gets_its_past(fake: Fake, context: RunContext) -> None:
    with logger().open(replace(context, resumed=True)) as opened:
        for step in (0, 1, 2):
            opened.remember(step, {"reward": 0.0})  # type: ignore[attr-defined]
        opened.log(3, {"reward": 1.0})
    assert [step for step, _ in fake.calls("log")] == [0, 1, 2, 3]


def test_a_run_that_is_refused_before_its_first_step_leaves_none(fake: Fake, context: RunContext) -> None:
    with pytest.raises(ConfigError), logger().open(context):
        raise ConfigError("refused")
    assert fake.calls("init") == []
    assert not (context.run_dir / "wandb.json").exists()


def test_one_that_hangs_costs_close_seconds_and_no_step(
    fake: Fake, context: RunContext, capfd: pytest.CaptureFixture[str]
) -> None:
    for how in ("hangs", "hangs at the end"):
        fake.behaves(how)
        started = time.monotonic()
        assert log_steps(logger(close_seconds=1), context, range(1, 4)) < 0.1
        assert time.monotonic() - started < 8
        err = capfd.readouterr().err
        assert err.count("warning") == 1, err
        assert "was not done after 1 s" in err
        (context.run_dir / "wandb.json").unlink()


def test_the_end_reaches_one_that_does_not_keep_up(
    fake: Fake, context: RunContext, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first line fills the pipe until the process is up, and the steps fill the queue."""
    monkeypatch.setattr(tracking, "QUEUE", 3)
    save_config(context.run_dir, much="x" * 200_000)
    log_steps(logger(close_seconds=2), context, range(1, 9))
    assert 1 <= len(fake.calls("log")) < 8
    assert fake.calls("finish") == [[0]]
    err = capfd.readouterr().err
    assert err.count("warning") == 1, err
    assert "does not keep up" in err


def test_one_that_no_longer_answers_is_killed(
    fake: Fake, context: RunContext, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "GRACE", 0.5)
    monkeypatch.setattr(tracking, "SILENCE", 0.5)
    fake.behaves("stopped")
    with logger(close_seconds=1).open(context) as opened:
        for step in (1, 2, 3):
            opened.log(step, {"reward": 0.0})
        process = opened._process  # type: ignore[attr-defined]
    assert process.poll() == -signal.SIGKILL
    err = capfd.readouterr().err
    assert err.count("warning") == 1, err
    assert "sends what is left" in err


def test_one_that_dies_warns_once_and_says_where_its_words_are(
    fake: Fake, context: RunContext, capfd: pytest.CaptureFixture[str]
) -> None:
    fake.behaves("dies")
    log_steps(logger(), context)
    err = capfd.readouterr().err
    assert err.count("warning") == 1, err
    assert "its process ended (9)" in err
    assert "wandb.log" in err


def test_one_that_exits_when_it_is_opened_warns_once_and_what_it_lacks_comes_later(
    fake: Fake, context: RunContext, capfd: pytest.CaptureFixture[str]
) -> None:
    fake.behaves("exits")
    log_steps(logger(), context)
    err = capfd.readouterr().err
    assert err.count("SystemExit: no key") == 1, err
    assert "step 1 and what follows could not be sent" in err
    fake.behaves("well")
    with logger().open(replace(context, resumed=True)) as opened:
        for step in (1, 2, 3):
            opened.remember(step, {"reward": 0.0})  # type: ignore[attr-defined]
        opened.log(4, {"reward": 0.0})
    assert [step for step, _ in fake.calls("log")] == [1, 2, 3, 4]


def test_no_server_is_offline_and_it_says_so(
    fake: Fake, context: RunContext, capfd: pytest.CaptureFixture[str]
) -> None:
    fake.behaves("down")
    log_steps(logger("online"), context)
    assert [call[-1] for call in fake.calls("init")] == ["online", "offline"]
    assert len(fake.calls("log")) == 3
    assert "not online (no server), so offline" in capfd.readouterr().err


def test_no_secret_of_the_configuration_reaches_it(fake: Fake, context: RunContext) -> None:
    save_config(
        context.run_dir, reward={"http": {"api_key": "canary-1", "url": "http://me:canary-2@host/x?k=canary-3"}}
    )
    log_steps(logger(), context)
    config = json.dumps(fake.calls("init")[0][3])
    assert "canary" not in config
    assert '"seed": 1' in config
    assert '"run_dir"' in config


def test_what_is_not_installed_is_an_error_before_anything_loads(
    context: RunContext, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wandb").mkdir()  # the folder that wandb makes is no library
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(sys, "modules", {name: one for name, one in sys.modules.items() if name != "wandb"})
    with pytest.raises(ConfigError, match=r"`logger\.wandb`: needs wandb.*pip install 'pggrpo\[wandb\]'"):
        logger().open(context).__enter__()
    node = {"_target_": "pggrpo_cli.logger.wandb.Wandb"}
    with pytest.raises(ConfigError, match=r"`logger\.mine`: needs wandb.*pip install 'pggrpo\[wandb\]'"):
        check_packages({"logger": {"mine": node}})
