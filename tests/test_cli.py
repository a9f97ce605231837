"""The program as a shell sees it: exit codes, messages, speed; no torch before it is needed, no folder after a refusal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pggrpo_cli import cli
from pggrpo_cli.errors import CheckpointError, StoppedEarly, UserCodeError
from pggrpo_cli.failure import report
from tests.command_line import environment, make_groups, run, run_all

# Arguments of `pggrpo`, and what stderr must say; all of them end with exit code 2.
REFUSED: dict[str, tuple[list[str], list[str]]] = {
    "misspelt command": (["trian"], ["`trian`", "Did you mean train?"]),
    "bare word": (["train", "foo"], ["`foo`", "key=value"]),
    "bare group": (["train", "model"], ["`model`", "write model=NAME", "tiny"]),
    "misspelt group": (["train", "modle=tiny"], ["`modle`", "Did you mean model?"]),
    "misspelt option": (["train", "model=tinny"], ["`model`", "no model=tinny", "Did you mean tiny?", "smollm2_135m"]),
    "one of several rewards": (["train", "reward=[mine,mien]"], ["`reward`", "Did you mean mine?"]),
    "null for a group": (["train", "model=null"], ["`model=null`", "model=NAME"]),
    "misspelt key": (["train", "trainer.max_step=3"], ["`trainer.max_step`", "Did you mean trainer.max_steps?"]),
    "misspelt key of a group": (["train", "sampler.group_sise=3"], ["Did you mean sampler.group_size?"]),
    "key without its group": (["train", "top_p=0.5"], ["Did you mean sampler.top_p?"]),
    "delete what is not there": (["train", "~trainer.max_stepz"], ["`trainer.max_stepz`", "trainer.max_steps"]),
    "added key": (["train", "+sampler.group_sise=3"], ["`sampler.group_sise`: Native has no such key", "group_size?"]),
    "wrong type": (["train", "trainer.max_steps=abc"], ["`trainer.max_steps`: 'abc' is not a whole number", "≥ 1"]),
    "wrong type in a group": (["train", "sampler.top_k=1.5"], ["`sampler.top_k`: 1.5 is not a whole number"]),
    "out of range": (["train", "trainer.max_steps=0"], ["`trainer.max_steps`: 0 is not ≥ 1", "trainer.max_steps=24"]),
    "section as value": (["train", "trainer=3"], ["`trainer`: is a section", "max_steps"]),
    "nothing given": (["train", "model=hf"], ["`model.path`: is not set", "model.path=VALUE"]),
    "broken syntax": (["train", "trainer.max_steps=[1"], ["`trainer.max_steps=[1`: cannot be read"]),
    "broken syntax below a key": (["train", "data.where.level=[1"], ["`data.where.level=[1`: cannot be read"]),
    "text that YAML reads as a number": (
        ["train", "reward=python", "reward.python.path=m.py", "reward.python.name=nan"],
        ["`reward.python.name`: nan is not text", "'reward.python.name=\"nan\"'"],
    ),
    "tracker elsewhere with a password": (
        ["train", "logger=mlflow", "logger.mlflow.tracking_uri=http://me:word@host"],
        ["`logger.mlflow.tracking_uri`: holds a name or a password", "MLFLOW_TRACKING_USERNAME"],
    ),
    "sweep without -m": (["train", "loss=pg_grpo,other"], ["`loss`", "pggrpo train -m", "loss=[pg_grpo,other]"]),
    "missing config dir": (["train", "--config-dir", "nowhere"], ["`--config-dir`", "nowhere"]),
    "missing search path": (["train", "hydra.searchpath=[file:///nowhere]"], ["`hydra.searchpath`", "/nowhere"]),
    "unknown option": (["train", "--multirunn"], ["--multirunn", "Did you mean --multirun?"]),
    "pickle": (["train", "--experimental-rerun", "x"], ["pggrpo resume"]),
    "other conf": (["train", "--config-path", "x"], ["--config-dir"]),
    "interpolation": (["train", "name=${nope}"], ["`name`", "nope"]),
    "reward without a name": (["train", "reward=[nameless]"], ["`reward`: holds a class where names are expected"]),
    "job of a sweep": (
        ["train", "-m", "sampler.top_p=1,2"],
        ["2 is not ≤ 1", "job 1 of the sweep", "no job was started"],
    ),
    "resume what": (["resume", "trainer.max_steps=3"], ["comes first"]),
}


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, tuple[int, str, str, list[str]]], Path]:
    groups = make_groups(tmp_path_factory.mktemp("groups"))
    empty = tmp_path_factory.mktemp("empty")
    lines = [
        [*line, *(["--config-dir", str(groups)] if line[0] == "train" and "--config-dir" not in line else [])]
        for line, _ in REFUSED.values()
    ]
    return dict(zip(REFUSED, run_all(lines, empty), strict=True)), empty


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.fault("T26")
def test_refused(case: str, refusals: tuple[dict[str, tuple[int, str, str, list[str]]], Path]) -> None:
    code, out, err, heavy = refusals[0][case]
    assert code == 2, err
    for words in REFUSED[case][1]:
        assert words in err
    assert err.startswith("error: ")
    assert "Traceback" not in err
    assert out == ""
    assert heavy == []


def test_a_refused_run_leaves_no_folder(refusals: tuple[dict[str, tuple[int, str, str, list[str]]], Path]) -> None:
    assert list(refusals[1].iterdir()) == []


@pytest.mark.parametrize("way", [["--config-dir", "groups"], ["hydra.searchpath=[groups]"]])
def test_a_file_that_ours_would_hide_is_refused(way: list[str], tmp_path: Path) -> None:
    groups = make_groups(tmp_path / "groups")
    (groups / "reward" / "format.yaml").write_text("# @package reward\nformat: {_target_: parts.Part, weight: 2}\n")
    ((code, _, err, _),) = run_all([["train", *way]], tmp_path)
    assert code == 2
    assert "`reward=format`" in err
    assert "my_format.yaml" in err


def test_all_component_errors_at_once(tmp_path: Path) -> None:
    groups = make_groups(tmp_path / "groups")
    line = [
        "train",
        "-cd",
        str(groups),
        "model=tiny",
        "model.family=lama",
        "sampler.top_p=2",
        "evaluation.num_prompts=0",
    ]
    ((code, _, err, _),) = run_all(
        [[*line, "reward=mine", "reward.mine.weight=x", "optimizer._target_=tourch.X"]], tmp_path
    )
    assert code == 2
    keys = ("evaluation.num_prompts", "model.family", "sampler.top_p", "reward.mine.weight", "optimizer._target_")
    for key in keys:
        assert f"`{key}`: " in err
    assert "llama | qwen2" in err
    assert len(err.strip().split("\n")) == len(keys)


def test_shown_without_torch(tmp_path: Path) -> None:
    groups = make_groups(tmp_path / "groups")
    lines = [["--help"], ["--version"], *(["train", "-cd", str(groups), "logger=mine", *more] for more in (
        ["--help"], ["--cfg", "job"], ["--cfg", "job", "--resolve"], ["--cfg", "hydra", "-p", "hydra.run"],
        ["--hydra-help"], ["--version"], ["-i", "defaults"],
    ))]  # fmt: skip
    found = run_all(lines, tmp_path)
    assert [code for code, *_ in found] == [0] * len(lines)
    assert all(heavy == [] for *_, heavy in found)
    outs = [out for _, out, _, _ in found]
    assert "train " in outs[0]
    assert outs[1].startswith("pggrpo ")
    assert outs[1] == outs[7]
    assert "loss: " in outs[2]
    assert "max_steps: 24" in outs[2]
    assert "group_size: 8" in outs[3]
    assert "outputs/" in outs[5]


@pytest.mark.parametrize(("arguments", "seconds", "code"), [
    (["--help"], 0.3, 0), (["train", "sampler.top_p=2"], 1.0, 2), *[([name, "--help"], 0.5, 0) for name in cli.commands()],
])  # fmt: skip
def test_speed(arguments: list[str], seconds: float, code: int, tmp_path: Path) -> None:
    """Seconds of processor time, which other tests beside this one lengthen less than the clock's; twice as many allowed."""
    groups = make_groups(tmp_path / "groups")
    if arguments[0] == "train":
        arguments = [*arguments, "-cd", str(groups), "logger=mine"]
    before = os.times()
    done = run(arguments, tmp_path)
    after = os.times()
    took = after.children_user - before.children_user + after.children_system - before.children_system
    assert 0 < took < 2 * seconds
    assert done.returncode == code


@pytest.mark.fault("T34")
def test_a_reader_that_leaves(tmp_path: Path) -> None:
    program = subprocess.Popen(
        [sys.executable, "-m", "pggrpo_cli", "--help"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert program.stdout is not None
    assert program.stderr is not None
    program.stdout.close()
    assert program.wait(30) == 141
    assert program.stderr.read() == b""
    program.stderr.close()


@pytest.mark.parametrize(("arguments", "closed", "code"), [
    ("config ls loss", ">&-", 0), ("config ls loss", "2>&- <&-", 0), ("nonsense", "2>&-", 2), ("nonsense", ">&- 2>&- <&-", 2)
])  # fmt: skip
@pytest.mark.fault("T34")
def test_streams_that_are_closed(arguments: str, closed: str, code: int, tmp_path: Path) -> None:
    """Nothing of what would stand on one of them goes to another, or fails."""
    command = f"{sys.executable} -m pggrpo_cli {arguments} {closed}"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment(), capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (code, b"")
    assert done.stdout.startswith(b"loss: ") == (code == 0 and closed != ">&-")
    assert bool(done.stdout) == (code == 0 and closed != ">&-")


def test_interrupted_outside_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(arguments: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_dispatch", interrupt)
    assert cli.main([]) == 130


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(arguments: list[str]) -> int:
        raise RuntimeError("a bug")

    monkeypatch.setattr(cli, "_dispatch", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        cli.main([])


def test_reports(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(CheckpointError("nothing there")) == 4
    assert capsys.readouterr().err == "error: nothing there\n"
    assert report(StoppedEarly("stopped after step 3")) == 75
    assert capsys.readouterr().err == "stopped after step 3\n"
    theirs = UserCodeError("`reward.mine`: raised")
    theirs.__cause__ = KeyError("theirs")
    assert report(theirs) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-2] == "KeyError: 'theirs'"
    assert lines[-1] == "error: `reward.mine`: raised"
    assert report(RuntimeError("a bug")) == 1
    assert "RuntimeError: a bug" in capsys.readouterr().err
