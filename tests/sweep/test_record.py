"""sweep.json: read back only as far as it may be trusted."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from pggrpo_cli.cli import main
from pggrpo_cli.composing import compose
from pggrpo_cli.config import plain
from pggrpo_cli.errors import CheckpointError, ConfigError, UsageError
from pggrpo_cli.sweep import launcher
from pggrpo_cli.sweep.jobs import Job
from pggrpo_cli.sweep.record import Record, folder_word, read_record
from pggrpo_cli.sweep.trust import Guard
from tests.sweep.pretended import command_of, notes

pytest_plugins = ["tests.command_fixtures"]


@pytest.fixture
def swept(groups: Path) -> Callable[..., Record]:
    """A sweep of one job that was never begun, as what was typed would have left it."""

    def make(*words: str, config_dir: Path | None = None) -> Record:
        typed = ["model=tiny", "logger=[]", *words]
        Path("swept").mkdir()
        cfg = plain(compose("train", typed, None if config_dir is None else str(config_dir)))
        record = Record(
            path=Path("swept").absolute(), words=tuple(typed), config_name="train", working_folder=str(Path.cwd()),
            config_dir=None if config_dir is None else str(config_dir), beforehand=True,
            jobs={0: Job(number=0, folder="0", overrides=tuple(typed), config=cfg)},
        )  # fmt: skip
        record.save()
        return record

    return make


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "command_of", command_of)
    monkeypatch.setattr("pggrpo_cli.sweep.processes.LOOK_SECONDS", 0.02)
    monkeypatch.setenv("BEHAVIOUR", "{}")


def resumed(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    capsys.readouterr()
    code = main(["sweep", "resume", "swept", *words])
    return code, capsys.readouterr().err


def test_it_comes_back_as_it_was(swept: Callable[..., Record], groups: Path) -> None:
    record = swept("loss=other", "name='a-b'", config_dir=groups)
    assert read_record(record.path) == record
    assert record.jobs[0].config["loss"] == {"_target_": "parts.Part", "beta": 0.2}


@pytest.mark.slow
@pytest.mark.usefixtures("pretended")
def test_from_another_folder(
    swept: Callable[..., Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    swept()
    began = Path.cwd()
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", "resume", str(began / "swept")]) == 0
    assert f"in {began}, where the sweep was started" in capsys.readouterr().err
    assert [one["cwd"] for one in notes(began / "swept" / "0")] == [str(began)]


@pytest.mark.fault("T30")
@pytest.mark.usefixtures("pretended")
def test_code_of_ones_own_must_be_allowed_again(
    swept: Callable[..., Record], groups: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    swept("loss=other", "security.allow_targets=[parts.Part]", config_dir=groups)
    code, err = resumed(capsys)
    assert code == 2
    assert "`loss._target_`: this sweep uses parts.Part" in err
    assert "security.allow_targets=[parts.Part]" in err
    assert "pggrpo sweep resume swept" in err
    assert not notes(Path("swept/0"))
    assert main(["sweep", "status", "swept"]) == 0
    out = capsys.readouterr().out
    assert "to go on: pggrpo sweep resume swept security.allow_targets=[parts.Part]" in out
    assert resumed(capsys, "security.allow_targets=[parts.Part]")[0] == 0
    assert len(notes(Path("swept/0"))) == 1
    assert resumed(capsys, "security.allow_targets=parts")[0] == 2


@pytest.mark.fault("T30")
@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("+hydra.callbacks.x._target_=parts.Part", "`hydra.callbacks.x._target_`: this sweep uses parts.Part"),
        ("+hydra.job.env_set.LD_PRELOAD=evil.so", "`hydra.job.env_set.LD_PRELOAD`: this sweep sets it"),
        ("hydra.sweeper._target_=parts.Sweeper", "`hydra.sweeper._target_`: this sweep uses parts.Sweeper"),
        ("hydra.launcher._target_=os.system", "`hydra.launcher._target_`: this sweep uses os.system"),
    ],
)
def test_hydras_own_node_too(
    swept: Callable[..., Record], word: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    record = swept()
    replace(record, words=(*record.words, word)).save()
    code, err = resumed(capsys)
    assert code == 2
    assert said in err
    assert not notes(Path("swept/0"))


@pytest.fixture
def evil(swept: Callable[..., Record]) -> Callable[[], bool]:
    """A package where the sweep was started, as an archive would bring it; tells whether it was imported."""
    Path("evilpkg").mkdir()
    Path("evilpkg/__init__.py").write_text("open('imported', 'w')")
    return lambda: Path("imported").exists()


@pytest.mark.fault("T30")
def test_nothing_is_imported_to_read_configurations(
    swept: Callable[..., Record], evil: Callable[[], bool], groups: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = swept("loss=other", config_dir=groups)
    replace(record, words=(*record.words, "hydra.searchpath=[pkg://evilpkg]")).save()
    code, err = resumed(capsys)
    assert (code, evil()) == (2, False)
    assert "`hydra.searchpath`: this sweep reads configurations from ['pkg://evilpkg']" in err
    (groups / "mine.yaml").write_text("defaults: [train, _self_]\nhydra: {searchpath: ['pkg://evilpkg']}\n")
    replace(record, config_name="mine").save()
    code, err = resumed(capsys)
    assert (code, evil()) == (2, False)
    assert "`hydra.searchpath`: this sweep reads configurations from ['pkg://evilpkg']" in err
    (groups / "mine.yaml").unlink()
    (groups / "experiment").mkdir()
    params = "# @package _global_\nhydra: {sweeper: {params: {hydra.searchpath: '[pkg://evilpkg]', seed: '1,2'}}}\n"
    (groups / "experiment" / "mine.yaml").write_text(params)
    replace(record, words=("model=tiny", "experiment=mine")).save()
    code, err = resumed(capsys)
    assert (code, evil()) == (2, False)
    assert "`hydra.searchpath`: this sweep reads configurations from ['pkg://evilpkg']" in err


@pytest.mark.fault("T30")
@pytest.mark.usefixtures("pretended")
def test_a_search_path_that_is_typed_again(
    swept: Callable[..., Record], groups: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = swept()
    replace(record, words=(*record.words, "hydra.searchpath=[pkg://evilpkg]")).save()
    assert resumed(capsys, f"hydra.searchpath=[file://{groups}]")[0] == 0
    assert resumed(capsys, "hydra.searchpath=[file:///tmp]", f"hydra.searchpath=[file://{groups}]")[0] == 2


@pytest.mark.fault("T30")
@pytest.mark.usefixtures("pretended")
def test_what_only_the_jobs_are_given(
    swept: Callable[..., Record], groups: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """hydra.sweeper.params is no part of the sweep's own configuration, but of each job's."""
    file = groups / "experiment" / "mine.yaml"
    file.parent.mkdir()
    file.write_text("# @package _global_\nhydra: {sweeper: {params: {++hydra.job.env_set.WISHED: evil.so}}}\n")
    record = swept(config_dir=groups)
    replace(record, words=(*record.words, "experiment=mine")).save()
    for typed in ([], ["+hydra.job.env_set.WISH=x"]):
        code, err = resumed(capsys, *typed)
        assert code == 2
        assert "`hydra.job.env_set.WISHED`: this sweep sets it to 'evil.so'" in err
        assert not notes(Path("swept/0"))
    assert resumed(capsys, "++hydra.job.env_set.WISHED=evil.so")[0] == 0
    assert [one["WISHED"] for one in notes(Path("swept/0"))] == ["evil.so"]


@pytest.mark.fault("T30")
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("setup", "[evil]"),
        ("srun_args", "['--task-prolog=/evil']"),
        ("additional_parameters", "{wrap: evil}"),
        ("partition", "'x\nevil'"),
        ("submitit_folder", "/evil"),
        ("pre_dispatch", "'evil()'"),
        ("partition", "{evil: 1}"),
    ],
)
def test_what_a_launcher_would_run(swept: Callable[..., Record], key: str, value: str) -> None:
    cfg = OmegaConf.create({"hydra": {"launcher": {"partition": "gpu", "timeout_min": 5, "setup": None}}})
    Guard(Path("swept"), []).sweep(cfg)
    cfg.hydra.launcher[key] = OverridesParser.create().parse_override(f"x={value}").value()
    with pytest.raises(ConfigError, match=f"`hydra.launcher.{key}`: this sweep sets it"):
        Guard(Path("swept"), []).sweep(cfg)
    Guard(Path("swept"), [f"++hydra.launcher.{key}={value}"]).sweep(cfg)


@pytest.mark.parametrize(
    ("key", "value"), [("sweeper.storage", "postgresql://evil"), ("job_logging.formatters.x.format", "ext://evil.x")]
)
def test_what_else_hydra_would_reach(key: str, value: str) -> None:
    cfg = OmegaConf.create({"hydra": {"launcher": {}}})
    OmegaConf.update(cfg, f"hydra.{key}", value)
    with pytest.raises(ConfigError, match=f"`hydra.{key}`: this sweep sets it"):
        Guard(Path("swept"), []).sweep(cfg)


@pytest.mark.fault("T30")
@pytest.mark.parametrize(
    "lookup", ["${oc.env:MY_SECRET}", "${ oc.env:MY_SECRET}", "${${name}:MY_SECRET}", "${now:${oc.env:MY_SECRET}}"]
)
def test_the_environment_is_not_looked_into(
    swept: Callable[..., Record], lookup: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MY_SECRET", "s3cret")
    record = swept()
    word = f"+logger.mlflow.tracking_uri='http://127.0.0.1:9/{lookup}'"
    replace(record, words=("model=tiny", "name=oc.env", word)).save()
    code, err = resumed(capsys)
    assert code == 2
    assert "`logger.mlflow.tracking_uri`: this sweep looks something up, " in err
    assert "s3cret" not in err + Path("swept/sweep.json").read_text()
    assert not Path("swept/0").exists()


@pytest.mark.fault("T30")
@pytest.mark.usefixtures("pretended")
def test_what_is_typed_may_look_things_up(
    swept: Callable[..., Record], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MY_NAME", "mine")
    swept("name=mine")
    code, err = resumed(capsys, "name=${oc.env:MY_NAME}")
    assert code == 0, err


def test_an_option_among_the_words_is_damage(swept: Callable[..., Record], capsys: pytest.CaptureFixture[str]) -> None:
    record = swept()
    replace(record, words=(*record.words, "--config-dir=/evil")).save()
    code, err = resumed(capsys)
    assert code == 4
    assert "`--config-dir=/evil`" in err


@pytest.mark.parametrize("damage", ["", "{", '{"words": 3}', '{"jobs": [{"number": 0, "folder": "../../x"}]}'])
def test_damaged(swept: Callable[..., Record], damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    swept()
    Path("swept/sweep.json").write_text(damage)
    for words in (["resume"], ["status"]):
        assert main(["sweep", *words, "swept"]) == 4
    assert "sweep.json is damaged" in capsys.readouterr().err


def test_a_job_cannot_lie_outside(swept: Callable[..., Record]) -> None:
    swept()
    values = json.loads(Path("swept/sweep.json").read_text())
    values["jobs"][0]["folder"] = "../elsewhere"
    Path("swept/sweep.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match="lies outside"):
        read_record(Path("swept"))


def test_what_is_no_sweep(swept: Callable[..., Record]) -> None:
    swept()
    Path("swept/0").mkdir()
    for path, words in (("nowhere", "is no folder"), ("swept/0", "It is a job of swept"), (".", "holds no sweep.json")):
        with pytest.raises(UsageError, match=words):
            read_record(Path(path))


@pytest.mark.parametrize("folder", ["swept", "it's, here", "back\\slash", "a b=[c]", "end\\", "\\'both"])
def test_the_word_of_a_folder_is_read_as_it_was(folder: str) -> None:
    (word,) = OverridesParser.create().parse_overrides([folder_word(folder)])
    assert (word.key_or_group, word.value()) == ("hydra.sweep.dir", folder)
