"""metrics.jsonl and samples.jsonl: whole lines of valid JSON in valid UTF-8, exact after a resume, never fatal."""

from __future__ import annotations

import errno
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pggrpo_cli.recorder import Recorder
from pggrpo_cli.types import Rollout, ScoredGroup
from tests.conftest import make_prompts


def group(completions: list[str], reward: float = 1.0) -> ScoredGroup:
    rollouts = [
        Rollout(completion_ids=torch.tensor([1]), logprobs=None, text=text, finish_reason="stop")
        for text in completions
    ]
    count = len(completions)
    return ScoredGroup(
        prompt=make_prompts([[1], [2]])[1],
        rollouts=rollouts,
        rewards=[reward] * count,
        reward_terms={"exact": [reward] * count, "other": [None] * count},
        advantages=[0.5] * count,
    )


def lines(path: Path) -> list[dict[str, Any]]:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    text = path.read_bytes().decode("utf-8")
    assert text == "" or text.endswith("\n")
    return [json.loads(line, parse_constant=refuse) for line in text.split("\n")[:-1]]


def test_a_line_a_step_at_once_and_nan_is_null(tmp_path: Path) -> None:
    with Recorder(tmp_path) as recorder:
        recorder.metrics(0, {"eval/reward": 0.25})
        recorder.metrics(1, {"reward": 0.1, "kl": math.nan, "ratio/max": math.inf, "loss": -math.inf})
        assert lines(tmp_path / "metrics.jsonl") == [
            {"step": 0, "eval/reward": 0.25},
            {"step": 1, "reward": 0.1, "kl": None, "ratio/max": None, "loss": None},
        ]


def test_a_line_a_completion(tmp_path: Path) -> None:
    with Recorder(tmp_path) as recorder:
        recorder.samples(3, [group(["a\nb", "c"]), group(["\ud83d x \udc00 é 日\u2028\x1b[2J</script>"], math.nan)])
    first, second, third = lines(tmp_path / "samples.jsonl")
    assert first == {
        "step": 3,
        "held_out": False,
        "prompt_index": 1,
        "sample": 0,
        "prompt": "",
        "completion": "a\nb",
        "finish_reason": "stop",
        "reward": 1.0,
        "reward_terms": {"exact": 1.0, "other": None},
        "advantage": 0.5,
        "prompt_ids": [2],
        "completion_ids": [1],
    }
    assert "prompt_ids" not in second  # once a group
    assert (second["sample"], second["completion"]) == (1, "c")
    assert third["completion"] == "\ufffd x \ufffd é 日\u2028\x1b[2J</script>"
    assert (third["reward"], third["reward_terms"]["exact"]) == (None, None)


def test_log_probabilities_have_five_decimals(tmp_path: Path) -> None:
    sampled = group(["ab"])
    logprobs = torch.tensor([-1.2345678, -0.0, -2.5e-9, -17.00001])
    rollouts = [replace(sampled.rollouts[0], completion_ids=torch.tensor([5, 6, 7, 8]), logprobs=logprobs)]
    with Recorder(tmp_path) as recorder:
        recorder.samples(1, [replace(sampled, rollouts=rollouts)])
    (line,) = lines(tmp_path / "samples.jsonl")
    assert line["completion_ids"] == [5, 6, 7, 8]
    assert "-0.0" not in (tmp_path / "samples.jsonl").read_text()
    assert line["logprobs"] == [-1.23457, 0.0, 0.0, -17.00001]


def record(recorder: Recorder, step: int) -> None:
    recorder.samples(step, [group([f"completion {step}"])])
    recorder.metrics(step, {"reward": step / 3})


def test_a_resumed_run_has_the_files_of_an_uninterrupted_one(tmp_path: Path) -> None:
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    straight.mkdir()
    broken.mkdir()
    with Recorder(straight) as recorder:
        for step in range(1, 9):
            record(recorder, step)
    first = Recorder(broken)
    for step in range(1, 5):
        record(first, step)
    state = json.loads(json.dumps(first.state()))
    for step in range(5, 7):
        record(first, step)
    first._metrics._file.write(b'{"step": 7, "rew')  # killed in the middle of a line
    first._samples._file.write('{"step": 7, "é'.encode()[:-1])
    with Recorder(broken) as recorder:
        recorder.load(state)
        for step in range(5, 9):
            record(recorder, step)
    for name in ("metrics.jsonl", "samples.jsonl"):
        assert (straight / name).read_bytes() == (broken / name).read_bytes()


@pytest.mark.fault("T2")
def test_a_torn_line_is_cut_even_without_a_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for torn in ("", '{"step": 2, "long": "' + "x" * 200_000):
        path.write_text('{"step": 1}\n' + torn)
        with Recorder(tmp_path) as recorder:
            recorder.metrics(2, {})
        assert lines(path) == [{"step": 1}, {"step": 2}]
    path.write_text("no line at all")
    with Recorder(tmp_path):
        assert path.read_text() == ""


@pytest.mark.fault("T8")
def test_files_shorter_than_the_checkpoint_says_are_not_filled_up(tmp_path: Path) -> None:
    said: list[str] = []
    with Recorder(tmp_path, said.append) as recorder:
        record(recorder, 1)
        record(recorder, 2)
        state = recorder.state()
    (tmp_path / "samples.jsonl").unlink()
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    with Recorder(tmp_path, said.append) as recorder:
        recorder.load(state)
        record(recorder, 3)
    assert [line["step"] for line in lines(tmp_path / "metrics.jsonl")] == [1, 3]
    assert [line["step"] for line in lines(tmp_path / "samples.jsonl")] == [3]
    assert len(said) == 1
    assert "metrics.jsonl is shorter" in said[0]


class FullDisk:
    """A file on a disk that takes `room` bytes more."""

    def __init__(self, file: Any, room: int) -> None:
        self.file, self.room = file, room

    def write(self, data: memoryview) -> int:
        if self.room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        count = self.file.write(data[: self.room])
        self.room -= count
        return int(count)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


@pytest.mark.parametrize("room", [0, 1, 30])
@pytest.mark.fault("T6")
def test_a_full_disk_warns_once_and_loses_no_metrics(tmp_path: Path, room: int) -> None:
    said: list[str] = []
    with Recorder(tmp_path, said.append) as recorder:
        record(recorder, 1)
        for part in (recorder._metrics, recorder._samples):
            part._file = FullDisk(part._file, room)  # type: ignore[assignment]
        for step in (2, 3):
            record(recorder, step)
            assert [line["step"] for line in lines(tmp_path / "samples.jsonl")] == [1]
        state = json.loads(json.dumps(recorder.state()))
        assert len(said) == 2
        assert "No space left" in said[0]
        if room < 30:
            assert [line["step"] for line in lines(tmp_path / "metrics.jsonl")] == [1]
        for part in (recorder._metrics, recorder._samples):
            part._file.room = 10**6  # type: ignore[attr-defined]
        record(recorder, 4)
    assert [line["step"] for line in lines(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4]
    assert [line["step"] for line in lines(tmp_path / "samples.jsonl")] == [1, 4]
    with Recorder(tmp_path) as resumed:  # from the checkpoint that was made while the disk was full
        resumed.load(state)
        record(resumed, 4)
    assert [line["step"] for line in lines(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4]


def test_the_history_is_what_was_recorded(tmp_path: Path) -> None:
    with Recorder(tmp_path) as recorder:
        recorder.metrics(0, {"eval/reward": 0.25})
        recorder.metrics(1, {"kl": math.nan})
        assert list(recorder.history()) == [(0, {"eval/reward": 0.25}), (1, {"kl": None})]
