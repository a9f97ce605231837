"""Names of runs and their sweeps."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from pggrpo_cli.tracking import identity


def test_the_id_stays_and_no_generator_is_asked(tmp_path: Path) -> None:
    before = random.getstate()
    first = identity.identity_of(tmp_path, "wandb")
    assert random.getstate() == before
    assert identity.identity_of(tmp_path, "wandb") == first
    assert identity.identity_of(tmp_path, "mlflow")["id"] != first["id"]
    assert (first["name"], first["group"]) == (tmp_path.name, None)


def test_a_job_is_named_after_its_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_sweep", lambda: "12-00-00-train-1a2b3c")
    job = tmp_path / "7"
    job.mkdir()
    found = identity.identity_of(job, "wandb")
    assert (found["name"], found["group"]) == ("12-00-00-train-1a2b3c/7", "12-00-00-train-1a2b3c")


def test_a_broken_file_is_a_new_run(tmp_path: Path) -> None:
    (tmp_path / "wandb.json").write_text("{")
    assert identity.identity_of(tmp_path, "wandb")["id"].isalnum()
