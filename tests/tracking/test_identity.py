"""Names of runs and their sweeps."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from pggrpo_cli.sweep import job
from pggrpo_cli.sweep.jobs import Job
from pggrpo_cli.sweep.record import Record
from pggrpo_cli.tracking import identity


def test_the_id_stays_and_no_generator_is_asked(tmp_path: Path) -> None:
    before = random.getstate()
    first = identity.identity_of(tmp_path, "wandb")
    assert random.getstate() == before
    assert identity.identity_of(tmp_path, "wandb") == first
    assert identity.identity_of(tmp_path, "mlflow")["id"] != first["id"]
    assert (first["name"], first["group"]) == (tmp_path.name, None)


def record(folder: Path, *jobs: str, beforehand: bool = True) -> None:
    """What a sweep leaves in its folder."""
    Record(
        path=folder, words=(), config_name="train", config_dir=None, working_folder=str(folder), beforehand=beforehand,
        jobs={n: Job(number=n, folder=one, overrides=(), config={}) for n, one in enumerate(jobs)},
    ).save()  # fmt: skip


def named(folder: Path) -> tuple[str, str | None]:
    folder.mkdir(parents=True, exist_ok=True)
    found = identity.identity_of(folder, "wandb")
    return found["name"], found["group"]


def test_a_job_is_named_after_its_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = tmp_path / "12-00-00-train-1a2b3c"
    sweep.mkdir()
    record(sweep, "7", "loss=grpo/seed=1")
    assert named(sweep / "7") == ("12-00-00-train-1a2b3c/7", "12-00-00-train-1a2b3c")
    assert named(sweep / "loss=grpo/seed=1") == ("12-00-00-train-1a2b3c/loss=grpo/seed=1", "12-00-00-train-1a2b3c")
    assert named(sweep / "mine") == ("mine", None)  # no job of it
    monkeypatch.chdir(sweep)
    (sweep / "7/wandb.json").unlink()
    assert named(Path("7"))[1] == "12-00-00-train-1a2b3c"


def test_a_trial_of_a_search_that_another_launcher_runs(tmp_path: Path) -> None:
    record(tmp_path, beforehand=False)
    assert named(tmp_path / "3") == (f"{tmp_path.name}/3", tmp_path.name)


def test_a_damaged_record_is_none(tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text('{"jobs": [1, {"folder": 2}]}')
    assert named(tmp_path / "3") == ("3", None)


def test_the_process_of_a_job_knows_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hydra is not initialised in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [])  # which it sets
    found: list[tuple[str, str | None]] = []

    def train(config: Mapping[str, Any], run_dir: Path, overrides: Sequence[str]) -> None:
        found.append(named(run_dir))

    monkeypatch.setattr("pggrpo_cli.training.train_job", train)
    Path("swept").mkdir()
    record(Path("swept"), "0", "1")
    assert job.main(["swept", "1"]) == 0
    assert found == [("swept/1", "swept")]


def test_a_run_that_begins_anew_is_another_one(tmp_path: Path) -> None:
    first = {tracker: identity.identity_of(tmp_path, tracker)["id"] for tracker in ("wandb", "mlflow")}
    (tmp_path / "error.json").write_text('{"job": 1}')
    (tmp_path / "list.json").write_text("[]")
    identity.forget(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["error.json", "list.json"]
    assert identity.identity_of(tmp_path, "wandb")["id"] not in first.values()


def test_a_broken_file_is_a_new_run(tmp_path: Path) -> None:
    (tmp_path / "wandb.json").write_text("{")
    assert identity.identity_of(tmp_path, "wandb")["id"].isalnum()
