"""An update that was not finite leaves its batch behind."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from safetensors.torch import load_file

from pggrpo_cli.bad_batches import MOST_FILES, write_bad_batch
from pggrpo_cli.metrics import values
from tests.conftest import tiny_policy
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
