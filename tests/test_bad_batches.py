"""An update that was not finite leaves its batch behind."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from safetensors.torch import load_file

from pggrpo_cli.assemble import find_checkpoint, run_training
from pggrpo_cli.bad_batches import MOST_FILES, write_bad_batch
from pggrpo_cli.errors import DivergedError
from pggrpo_cli.interruption import Interruption
from pggrpo_cli.metrics import values
from tests.command_line import run
from tests.conftest import tiny_policy
from tests.test_exact_resume import config
from tests.test_update import LOSSES, minibatches, updater

pytestmark = pytest.mark.fault("T17")


def test_the_batch_is_written_once_for_each_update_that_was_not_applied(tmp_path: Path) -> None:
    loss = LOSSES["pg_grpo"]()
    broken = minibatches(loss, 60)
    broken[0].micro_batches[1].advantages[0] = float("nan")
    working = updater(tiny_policy(), loss, bad=9)
    for _ in range(2):
        assert values(working.update(broken, partial(write_bad_batch, tmp_path, 12)))["updates/skipped"] == 1
    working.update(minibatches(loss, 60), partial(write_bad_batch, tmp_path, 13))
    assert sorted(file.name for file in (tmp_path / "debug").iterdir()) == [
        "step-000012-1.json", "step-000012-1.safetensors", "step-000012-2.json", "step-000012-2.safetensors",
    ]  # fmt: skip
    facts = json.loads((tmp_path / "debug" / "step-000012-1.json").read_text())
    tensors = load_file(tmp_path / "debug" / "step-000012-1.safetensors")
    rows = [row for micro in broken[0].micro_batches for row in micro.rows]
    assert (facts["step"], facts["loss"], facts["sample"]) == (12, "nan", [row.sample for row in rows])
    assert tensors["completion_ids"].tolist() == [
        token for row in rows for token in row.rollout.completion_ids.tolist()
    ]
    assert tensors["lengths"].tolist() == [len(row.rollout.completion_ids) for row in rows]
    assert tensors["advantages"].isnan().sum() == 1


def test_there_is_an_end_to_it_and_a_disk_that_refuses_is_no_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    minibatch = minibatches(LOSSES["dapo"](), 10_000)[0]
    written = [write_bad_batch(tmp_path, step, minibatch, 1.0, float("inf")) for step in range(MOST_FILES + 3)]
    assert [file is None for file in written] == [False] * MOST_FILES + [True] * 3
    (tmp_path / "file").write_text("")
    assert write_bad_batch(tmp_path / "file", 1, minibatch, 1.0, 1.0) is None
    assert "could not be written" in capsys.readouterr().err


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    """An update of finite numbers can ruin the weights; a checkpoint of those would push a good one out."""
    line = [
        "train",
        "debug=fast",
        "hydra.run.dir=run",
        "trainer.max_steps=4",
        "evaluation.every=null",
        "data.eval_size=0",
    ]
    line += ["checkpoint.every=1", "checkpoint.keep_last=1", "scheduler=constant"]
    ended = run([*line, "optimizer.lr=3e38"], tmp_path)
    assert ended.returncode == 3, ended.stderr
    assert "the weights after step 1 are not finite; they are not saved" in ended.stderr
    assert "No checkpoint was saved before it." in ended.stderr


def test_checkpoints_from_before_stay_while_updates_are_bad(tmp_path: Path) -> None:
    """Weights as large as 1e29 are finite, but nothing that comes of them is."""
    (tmp_path / "run").mkdir()
    line = [
        "loss=pg_grpo",
        "sampler.max_new_tokens=6",
        "evaluation.every=null",
        "checkpoint.every=1",
        "scheduler=constant",
    ]
    first = config([*line, "checkpoint.keep_last=2"], 2)
    run_training(first, tmp_path / "run", None, Interruption())
    ruined = config([*line, "checkpoint.keep_last=2", "optimizer.lr=1e30", "resume.allow_changed=[optimizer.lr]"], 9)
    with pytest.raises(DivergedError, match="Checkpoints from before: step-000002, step-000003, step-000004") as caught:
        run_training(ruined, tmp_path / "run", find_checkpoint(tmp_path / "run"), Interruption())
    assert "step-000002" in str(caught.value).partition("resume.from=")[2]
    weights = load_file(tmp_path / "run" / "checkpoints" / "step-000002" / "model.safetensors")
    assert all(tensor.abs().max() < 100 for tensor in weights.values())
