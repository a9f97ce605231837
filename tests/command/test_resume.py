"""`pggrpo resume`: the same directory, few changes, and no class that a stranger's run names."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pggrpo_cli.cli import main
from pggrpo_cli.composing import compose
from pggrpo_cli.config import as_dict, typed
from pggrpo_cli.errors import CheckpointError, ConfigError
from pggrpo_cli.run_directory import changed_keys, may_change, resume_command, save_config
from pggrpo_cli.run_overrides import refuse_targets
from tests.command_line import PretendedTraining, make_checkpoint, make_groups

pytest_plugins = ["tests.command_fixtures"]

BASE = ["model=tiny", "logger=mine", "loss=other", "reward=mine"]
ALLOW = "security.allow_targets=[parts]"


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that stopped; its loss is a class of the user's own, parts.Part."""
    folder = make_groups(tmp_path_factory.mktemp("groups"))
    run_dir = tmp_path_factory.mktemp("stopped") / "run"
    make_checkpoint(run_dir)
    save_config(run_dir, as_dict(typed(compose("train", BASE, str(folder)))))
    (run_dir / "overrides.yaml").write_text(yaml.safe_dump(BASE))
    return run_dir


@pytest.fixture
def run(stopped: Path, training: PretendedTraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    training.finishes = False
    monkeypatch.chdir(tmp_path)
    shutil.copytree(stopped, "run")
    return Path("run")


def test_goes_on_in_place(run: Path, training: PretendedTraining) -> None:
    assert (
        main(["resume", "run", ALLOW, "trainer.max_steps=99", "checkpoint.keep_last=5", "trainer.max_minutes=3"]) == 0
    )
    ((config, run_dir, resume_from),) = training.calls
    assert (run_dir, resume_from) == (run, run)
    assert (config.trainer.max_steps, config.checkpoint.keep_last, config.trainer.max_minutes) == (99, 5, 3.0)
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["max_steps"] == 99
    assert yaml.safe_load((run / "overrides.yaml").read_text()) == BASE


@pytest.mark.parametrize(("words", "code", "said"), [
    (["sampler.top_k=3"], 2, "`sampler.top_k`: differs"),
    (["sampler.top_k=3", "resume.allow_changed=[sampler.top_k]"], 0, ""),
    (["sampler.top_k=3", "resume.allow_changed=[sampler]"], 0, ""),
    (["resume.allow_changed=sampler"], 2, "not a list"),
    (["trainer.max_steps=0"], 2, "0 is not ≥ 1"),
    (["trainer.max_step=3"], 2, "Did you mean trainer.max_steps?"),
    (["trainer=3"], 2, "holds keys of its own"),
    (["trainer.max_steps=1,2"], 2, "one value"),
    (["~trainer.max_steps"], 2, "one value"),
    (["trainer.max_steps"], 2, "cannot be read"),
    (["logger=nope"], 2, "no logger=nope"),
])  # fmt: skip
@pytest.mark.fault("T9")
def test_changes(run: Path, words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["resume", str(run), ALLOW, *words]) == code
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("run_itself_allows", [False, True])
@pytest.mark.fault("T30")
def test_targets_read_back(
    run: Path, run_itself_allows: bool, training: PretendedTraining, capsys: pytest.CaptureFixture[str]
) -> None:
    if run_itself_allows:
        values = yaml.safe_load((run / "config.yaml").read_text())
        values["security"]["allow_targets"] = ["parts"]
        (run / "config.yaml").write_text(yaml.safe_dump(values))
    assert main(["resume", "run", "trainer.max_steps=99"]) == 2
    assert "security.allow_targets=[parts." in capsys.readouterr().err
    assert training.calls == []


@pytest.mark.fault("T30")
def test_a_target_below_ours_that_is_no_component(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = yaml.safe_load((run / "config.yaml").read_text())
    values["loss"] = {"_target_": "pggrpo_cli.environment.save_environment", "file": "x", "computes": "y"}
    (run / "config.yaml").write_text(yaml.safe_dump(values))
    assert main(["resume", "run", ALLOW]) == 2
    assert "loss._target_" in capsys.readouterr().err


@pytest.mark.fault("T30")
def test_a_run_from_elsewhere_does_not_run_its_file(
    run: Path, training: PretendedTraining, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("evil.py").write_text("open('canary', 'w')\ndef f(completions): ...\n")
    values = yaml.safe_load((run / "config.yaml").read_text())
    target = "pggrpo_cli.reward.python.Python"
    values["reward"] = {"python": {"_target_": target, "path": "evil.py", "name": "f", "weight": 1.0}}
    (run / "config.yaml").write_text(yaml.safe_dump(values))
    assert main(["resume", "run", ALLOW]) == 2
    err = capsys.readouterr().err
    assert "`reward.python._target_`" in err
    assert "the file evil.py" in err
    assert not Path("canary").exists()
    assert training.calls == []
    allowed = f"security.allow_targets=[parts,{target}]"
    assert allowed.split(",")[1] in err.replace("allow_targets=[", "allow_targets=[parts,")
    assert main(["resume", "run", allowed]) == 0


@pytest.mark.fault("T30")
def test_a_run_from_elsewhere_does_not_filter_its_rows_with_its_file(
    run: Path, training: PretendedTraining, capsys: pytest.CaptureFixture[str]
) -> None:
    values = yaml.safe_load((run / "config.yaml").read_text())
    values["data"]["keep"] = {"path": "evil.py", "name": "f"}
    (run / "config.yaml").write_text(yaml.safe_dump(values))
    assert main(["resume", "run", ALLOW]) == 2
    err = capsys.readouterr().err
    assert "`data.keep.path`: this run uses the file evil.py" in err
    assert "security.allow_targets=[pggrpo_cli.filters.Sieve]" in err
    assert training.calls == []
    Path("evil.py").write_text("def f(row): ...\n")
    assert main(["resume", "run", "security.allow_targets=[parts,pggrpo_cli.filters.Sieve]"]) == 0


def composed_reward(*words: str) -> dict[str, Any]:
    return as_dict(typed(compose("train", ["model=tiny", "logger=[]", *words])))["reward"]


JUDGED = ["reward=judge", "reward.judge.model=m"]
JUDGE, HTTP = "pggrpo_cli.reward.judge.Judge", "pggrpo_cli.reward.http.Http"


@pytest.mark.parametrize(("words", "target", "said"), [
    (["reward=http", "reward.http.url=https://evil.example/x", "+reward.http.headers_env.X-A=MY_SECRET"], HTTP,
     "the server evil.example, which is sent the environment variable MY_SECRET"),
    (["reward=http", "reward.http.url=http://127.0.0.1:9/x", "+reward.http.headers_env.X-A=MY_SECRET"], HTTP,
     "the server 127.0.0.1, which is sent the environment variable MY_SECRET"),
    ([*JUDGED, "reward.judge.url=https://evil.example/v1", "reward.judge.key_env=MY_SECRET"], JUDGE,
     "the server evil.example, which is sent the environment variable MY_SECRET"),
    ([*JUDGED, "reward.judge.url=https://evil.example/v1"], JUDGE,
     "the server evil.example, which is sent prompts and completions"),
    ([*JUDGED, "reward.judge.url=http://127.0.0.1.evil.example/v1"], JUDGE, "the server 127.0.0.1.evil"),
    ([*JUDGED], None, ""),
    ([*JUDGED, "reward.judge.url=http://localhost:1/v1"], None, ""),
    (["reward=http", "reward.http.url='http://[::1]:9/x'"], None, ""),
    (["reward=verifiers", "reward.verifiers.environment=evil_env"], "pggrpo_cli.reward.verifiers.Verifiers",
     "the code of the environment evil_env"),
])  # fmt: skip
@pytest.mark.fault("T30")
def test_a_run_from_elsewhere_does_not_choose_who_is_told_or_what_is_imported(
    run: Path,
    words: list[str],
    target: str | None,
    said: str,
    training: PretendedTraining,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MY_SECRET", "canary")
    values = yaml.safe_load((run / "config.yaml").read_text())
    values["reward"] = composed_reward(*words)
    (run / "config.yaml").write_text(yaml.safe_dump(values))
    command = resume_command(values, run)
    if target is None:
        assert "pggrpo_cli" not in command
        assert main(["resume", "run", ALLOW]) == 0
        return
    assert main(["resume", "run", ALLOW]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert f"security.allow_targets=[{target}]" in err
    assert "canary" not in err
    assert training.calls == []
    assert target in command
    assert main(["resume", "run", f"security.allow_targets=[parts,{target}]"]) == 0


@pytest.mark.parametrize(
    ("place", "refused"),
    [
        (None, False),
        ("sqlite:///here.db", False),
        ("http://127.0.0.1:5000", False),
        ("http://elsewhere", True),
        ("databricks", True),
    ],
)
@pytest.mark.fault("T30")
def test_a_run_from_elsewhere_does_not_choose_where_metrics_go(
    run: Path,
    place: str | None,
    refused: bool,
    training: PretendedTraining,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("pggrpo_cli.tracking.packages.installed", lambda module: True)
    values = yaml.safe_load((run / "config.yaml").read_text())
    node = as_dict(typed(compose("train", ["logger=mlflow"])))["logger"]["mlflow"]
    values["logger"] = {"mlflow": {**node, "tracking_uri": place}}
    (run / "config.yaml").write_text(yaml.safe_dump(values))
    assert main(["resume", "run", ALLOW]) == (2 if refused else 0)
    if refused:
        assert f"{place}, which is sent metrics" in capsys.readouterr().err
        assert main(["resume", "run", "security.allow_targets=[parts,pggrpo_cli.logger.mlflow]"]) == 0


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.fault("T30")
def test_an_environment_as_data_is_code(run: Path, nested: bool, capsys: pytest.CaptureFixture[str]) -> None:
    values = yaml.safe_load((run / "config.yaml").read_text())
    target = "pggrpo_cli.data.verifiers.Verifiers"
    node = {"_target_": target, "environment": "evil_env", "options": {}, "size": None, "eval_size": 4}
    values["data"] = {"_target_": "parts.Part", "inner": [node]} if nested else values["data"] | node
    with pytest.raises(
        ConfigError, match=r"the code of the environment evil_env .*\[pggrpo_cli\.data\.verifiers\.Verifiers\]"
    ):
        refuse_targets(values, ["parts"], typed=())
    refuse_targets(values, ["parts", target], typed=())


@pytest.mark.fault("T30")
def test_a_run_from_elsewhere_looks_nothing_up(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Hydra resolves what it instantiates, and so would build the class that an interpolation makes."""
    values = yaml.safe_load((run / "config.yaml").read_text())
    values["reward"] = composed_reward("reward=regex", "reward.regex.pattern=x")
    for text in ("${oc.env:HOME}", "${oc.create:{_target_:os.getcwd}}", "\\${oc.env:HOME}"):
        values["reward"]["regex"]["pattern"] = text
        (run / "config.yaml").write_text(yaml.safe_dump(values))
        assert main(["resume", "run", ALLOW]) == 2
        assert "`reward.regex.pattern`: holds an interpolation" in capsys.readouterr().err


@pytest.mark.parametrize("target", ["pggrpo_cli.reward.python._load", "pggrpo_cli.instantiate.component"])
@pytest.mark.fault("T30")
def test_only_what_our_configurations_name_is_ours(run: Path, target: str, capsys: pytest.CaptureFixture[str]) -> None:
    values = yaml.safe_load((run / "config.yaml").read_text())
    values["reward"] = {"python": {"_target_": target, "weight": 1.0}}
    (run / "config.yaml").write_text(yaml.safe_dump(values))
    assert main(["resume", "run", ALLOW]) == 2
    assert "`reward.python" in capsys.readouterr().err


def test_fewer_steps_than_are_done(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run / "config.yaml").read_text()
    assert before.count("max_steps: 24") == 1
    assert main(["resume", "run", ALLOW, "trainer.max_steps=1"]) == 2
    assert "`trainer.max_steps`: 1, and the run is at step 1 already" in capsys.readouterr().err
    assert (run / "config.yaml").read_text() == before


def test_a_refused_resume_changes_nothing(
    run: Path, training: PretendedTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: Path) -> Path:
        raise CheckpointError("all broken")

    monkeypatch.setattr(sys.modules["pggrpo_cli.assemble"], "find_checkpoint", broken)
    before = (run / "config.yaml").read_text()
    (run / "finished.json").write_text('{"step": 1}')
    assert main(["resume", "run", ALLOW, "trainer.max_steps=99"]) == 4
    assert (run / "config.yaml").read_text() == before
    assert (run / "finished.json").exists()


@pytest.mark.fault("T8")
def test_files_that_were_torn(run: Path, training: PretendedTraining) -> None:
    """By whatever: a session that cannot be read back says nothing, and stops nobody."""
    assert main(["resume", "run", ALLOW]) == 0
    assert training.said == []
    (run / "environment.json").write_text((run / "environment.json").read_text()[:40])
    (run / ".config.yaml.tmp").write_text("half a conf")
    assert main(["resume", "run", ALLOW, "trainer.max_steps=30"]) == 0
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["max_steps"] == 30
    assert json.loads((run / "environment.json").read_text())["threads"]["torch"] >= 1


@pytest.mark.fault("T9")
def test_another_environment_is_said(run: Path, training: PretendedTraining) -> None:
    assert main(["resume", "run", ALLOW]) == 0
    before = json.loads((run / "environment.json").read_text())
    before["threads"]["torch"] += 1
    before["versions"]["torch"] = "1.0"
    (run / "environment.json").write_text(json.dumps(before))
    assert main(["resume", "run", ALLOW, "trainer.max_steps=30"]) == 0
    (said,) = training.said
    assert f"threads {before['threads']['torch'] - 1}, before {before['threads']['torch']}" in said
    assert "before 1.0" in said
    assert "not to the bit" in said


def test_text_that_looks_like_an_interpolation_is_text(run: Path, training: PretendedTraining) -> None:
    values = yaml.safe_load((run / "config.yaml").read_text())
    values["data"]["prompt_suffix"] = "${oc.env:HOME}"
    (run / "config.yaml").write_text(yaml.safe_dump(values))
    assert main(["resume", "run", ALLOW]) == 0
    assert training.calls[0][0].data["prompt_suffix"] == "${oc.env:HOME}"


def test_a_finished_run(run: Path, training: PretendedTraining, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "finished.json").write_text('{"step": 24}')
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["security"]["allow_targets"] = ["parts"]
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert main(["resume", "run", ALLOW]) == 0
    assert "finished, after step 24" in capsys.readouterr().out
    assert training.calls == []
    assert main(["resume", "run", ALLOW, "trainer.max_steps=30"]) == 0
    assert len(training.calls) == 1
    assert not (run / "finished.json").exists()


@pytest.mark.fault("T4")
def test_nothing_to_go_on_from(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(run, "outputs/2026-11-23/12-00-00-train-abcdef")
    assert main(["resume", "outputs/2026-11-23/12-00-00-train-abcdee"]) == 4
    assert "Did you mean outputs/2026-11-23/12-00-00-train-abcdef?" in capsys.readouterr().err
    Path("empty").mkdir()
    assert main(["resume", "empty"]) == 4
    assert "not the directory of a run" in capsys.readouterr().err
    assert main(["resume", "run/checkpoints/step-000001"]) == 2
    assert "resume takes the run: pggrpo resume run." in capsys.readouterr().err
    shutil.rmtree(run / "checkpoints")
    assert main(["resume", "run"]) == 4
    (run / "config.yaml").write_text("a: [")
    assert main(["resume", "run"]) == 4
    assert main(["resume"]) == 2
    assert main(["resume", "--help"]) == 0


def test_changed_keys() -> None:
    old = {"a": 1, "b": {"c": 1, "d": [1]}, "e": {"f": 1}}
    new = {"a": 1, "b": {"c": 2, "d": [1]}, "e": None, "g": 3}
    assert changed_keys(old, new) == ["b.c", "e", "g"]
    assert may_change("logger.console.width", ("logger",))
    assert not may_change("loggers", ("logger",))
