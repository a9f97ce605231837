"""sweep.json: read back only as far as it may be trusted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pggrpo_cli.cli import main
from pggrpo_cli.errors import CheckpointError, UsageError
from pggrpo_cli.sweep import launcher
from pggrpo_cli.sweep.record import read_record
from tests.sweep.pretended import command_of, notes

pytest_plugins = ["tests.command_fixtures"]


@pytest.fixture
def swept(groups: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A sweep of one job that failed."""
    monkeypatch.setattr(launcher, "command_of", command_of)
    monkeypatch.setattr("pggrpo_cli.sweep.processes.LOOK_SECONDS", 0.02)
    monkeypatch.setenv("BEHAVIOUR", '{"3": "diverged"}')

    def sweep(*words: str) -> None:
        assert main(["train", "-m", "model=tiny", "logger=[]", "seed=3", "hydra.sweep.dir=swept", *words]) == 3
        monkeypatch.setenv("BEHAVIOUR", "{}")

    return sweep


def resumed(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    capsys.readouterr()
    code = main(["sweep", "resume", "swept", *words])
    return code, capsys.readouterr().err


def test_what_is_written(swept: Callable[..., None], groups: Path) -> None:
    swept("-cd", str(groups), "loss=other", "sweep.jobs=2", "name='a b'".replace(" ", "-"))
    record = read_record(Path("swept").absolute())
    assert record.words == ("model=tiny", "logger=[]", "seed=3", "loss=other", "sweep.jobs=2", "name='a-b'")
    assert (record.config_dir, record.working_folder, record.beforehand) == (str(groups), str(Path.cwd()), True)
    assert record.jobs[0].config["loss"] == {"_target_": "parts.Part", "beta": 0.2}
    assert record.jobs[0].config["name"] == "a-b"


def test_from_another_folder(
    swept: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    swept()
    began = Path.cwd()
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", "resume", str(began / "swept")]) == 0
    assert f"in {began}, where the sweep was started" in capsys.readouterr().err
    assert [one["cwd"] for one in notes(began / "swept" / "0")] == [str(began)] * 2


@pytest.mark.fault("T30")
def test_code_of_ones_own_must_be_allowed_again(
    swept: Callable[..., None], groups: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    swept("-cd", str(groups), "loss=other", "security.allow_targets=[parts.Part]")
    code, err = resumed(capsys)
    assert code == 2
    assert "`loss._target_`: this sweep uses parts.Part" in err
    assert "security.allow_targets=[parts.Part]" in err
    assert "pggrpo sweep resume swept" in err
    assert len(notes(Path("swept/0"))) == 1
    assert main(["sweep", "status", "swept"]) == 0
    out = capsys.readouterr().out
    assert "to go on: pggrpo sweep resume swept security.allow_targets=[parts.Part]" in out
    assert resumed(capsys, "security.allow_targets=[parts.Part]")[0] == 0
    assert resumed(capsys, "security.allow_targets=parts")[0] == 2


@pytest.mark.fault("T30")
@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("+hydra.callbacks.x._target_=parts.Part", "`hydra.callbacks.x._target_`: this sweep uses parts.Part"),
        ("+hydra.job.env_set.LD_PRELOAD=evil.so", "`hydra.job.env_set`: this sweep sets it"),
        ("hydra.sweeper._target_=parts.Sweeper", "`hydra.sweeper._target_`: this sweep uses parts.Sweeper"),
        ("hydra.launcher._target_=os.system", "`hydra.launcher._target_`: this sweep uses os.system"),
    ],
)
def test_hydras_own_node_too(
    swept: Callable[..., None], word: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    swept()
    values = json.loads(Path("swept/sweep.json").read_text())
    values["words"].append(word)
    Path("swept/sweep.json").write_text(json.dumps(values))
    code, err = resumed(capsys)
    assert code == 2
    assert said in err
    assert len(notes(Path("swept/0"))) == 1


@pytest.mark.parametrize("damage", ["", "{", '{"words": 3}', '{"jobs": [{"number": 0, "folder": "../../x"}]}'])
def test_damaged(swept: Callable[..., None], damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    swept()
    Path("swept/sweep.json").write_text(damage)
    for words in (["resume"], ["status"]):
        assert main(["sweep", *words, "swept"]) == 4
    assert "sweep.json is damaged" in capsys.readouterr().err


def test_a_job_cannot_lie_outside(swept: Callable[..., None]) -> None:
    swept()
    values = json.loads(Path("swept/sweep.json").read_text())
    values["jobs"][0]["folder"] = "../elsewhere"
    Path("swept/sweep.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match="lies outside"):
        read_record(Path("swept"))


def test_what_is_no_sweep(swept: Callable[..., None]) -> None:
    swept()
    for path, words in (("nowhere", "is no folder"), ("swept/0", "It is a job of swept"), (".", "holds no sweep.json")):
        with pytest.raises(UsageError, match=words):
            read_record(Path(path))
