from __future__ import annotations

import errno
import sys
from dataclasses import replace
from typing import Any

import pytest

from pggrpo_cli.errors import ConfigError
from pggrpo_cli.logger.tensorboard import TensorBoard
from pggrpo_cli.types import RunContext


def accumulator(context: RunContext) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(context.run_dir / "tensorboard")).Reload()


def scalars(context: RunContext) -> dict[str, list[tuple[int, float]]]:
    events = accumulator(context)
    return {tag: [(one.step, one.value) for one in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_metrics_by_their_own_names_and_no_step_twice_after_a_resume(context: RunContext) -> None:
    with TensorBoard(flush_seconds=10).open(context) as logger:
        for step in (1, 2, 3, 4):
            logger.log(step, {"reward": step / 4, "clip_ratio/low_mean": None, "kl": 0.5})
    with TensorBoard(flush_seconds=10).open(replace(context, resumed=True)) as logger:
        logger.log(3, {"reward": 0.125})
    assert scalars(context) == {"reward": [(1, 0.25), (2, 0.5), (3, 0.125)], "kl": [(1, 0.5), (2, 0.5)]}


def test_a_run_that_begins_anew_has_its_own_curves_alone(context: RunContext) -> None:
    with TensorBoard(flush_seconds=10).open(context) as logger:
        for step in (0, 1, 2, 3):
            logger.log(step, {"reward": step / 4, "eval/reward": 0.5})
    (context.run_dir / "tensorboard" / "mine.txt").write_text("a note")
    with TensorBoard(flush_seconds=10).open(context) as logger:
        logger.log(1, {"reward": 0.75})
    assert scalars(context) == {"reward": [(1, 0.75)]}
    assert (context.run_dir / "tensorboard" / "mine.txt").exists()


def test_a_reader_that_watches_sees_the_run_begin_anew(context: RunContext) -> None:
    with TensorBoard(flush_seconds=10).open(context) as logger:
        for step in (1, 2, 3):
            logger.log(step, {"reward": step / 4})
    events = accumulator(context)
    with TensorBoard(flush_seconds=10).open(context) as logger:
        logger.log(1, {"reward": 0.75})
    events.Reload()
    assert [(one.step, one.value) for one in events.Scalars("reward")] == [(1, 0.75)]


def test_without_tensorboard_it_says_how_to_install_it(context: RunContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with (
        pytest.raises(ConfigError, match=r"logger\.tensorboard.*pip install 'pggrpo\[tensorboard\]'"),
        TensorBoard(flush_seconds=10).open(context),
    ):
        pass


def test_a_failing_disk_warns_once(
    context: RunContext, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch.utils.tensorboard

    def fail(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch.utils.tensorboard.SummaryWriter, "add_scalar", fail)
    with TensorBoard(flush_seconds=10).open(context) as logger:
        logger.log(1, {"reward": 1.0})
        logger.log(2, {"reward": 1.0})
    assert capsys.readouterr().err.count("goes on without it") == 1
