"""Files of models on disk, told apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from pggrpo_cli.model_files import WHOLE_BYTES, files_digest, reward_model_files
from tests.conftest import save_tiny

REWARD_MODEL, IMPLICIT = "pggrpo_cli.reward.reward_model.RewardModel", "pggrpo_cli.reward.implicit.Implicit"


def test_what_a_score_depends_on_and_nothing_else(tmp_path: Path) -> None:
    one, other = save_tiny(tmp_path / "one"), save_tiny(tmp_path / "other")
    before = files_digest(one)
    assert files_digest(other) == before  # a copy elsewhere is the same model
    (one / "README.md").write_text("a note")
    (one / "model.safetensors").touch()
    assert files_digest(one) == before
    for name in ("config.json", "tokenizer_config.json", "model.safetensors"):
        text = (one / name).read_bytes()
        (one / name).write_bytes(text[:-2] + bytes([text[-2] ^ 1]) + text[-1:])
        assert files_digest(one) != before
        (one / name).write_bytes(text)
    (one / "chat_template.jinja").write_text("{{ messages }}")
    assert files_digest(one) != before
    assert files_digest(save_tiny(tmp_path / "seed", init_seed=1)) != before


@pytest.mark.parametrize("size", [0, WHOLE_BYTES, WHOLE_BYTES + 1, 5 * WHOLE_BYTES])
def test_a_large_file_is_known_by_samples(tmp_path: Path, size: int) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(bytes(size))
    before = files_digest(file)
    assert files_digest(file) == before
    file.write_bytes(bytes(size + 1))
    longer = files_digest(file)
    assert longer != before
    file.write_bytes(b"\1" * (size + 1))
    assert files_digest(file) not in {before, longer}
    file.write_bytes(bytes(WHOLE_BYTES) + b"\1" * size)
    other_end = files_digest(file)
    file.write_bytes(bytes(WHOLE_BYTES + size))
    assert (files_digest(file) == other_end) is (size == 0)


def test_hub_ids_and_other_rewards_have_no_files_here(tmp_path: Path) -> None:
    folder = str(save_tiny(tmp_path / "one"))
    rewards = {
        "length": {"_target_": "pggrpo_cli.reward.length.Length", "path": folder},
        "reward_model": {"_target_": REWARD_MODEL, "path": "org/scorer"},
        "implicit": {"_target_": IMPLICIT, "path": folder, "reference_path": None},
        "second": {"_target_": IMPLICIT, "path": "org/model", "reference_path": folder},
    }
    assert reward_model_files(rewards).keys() == {"reward.implicit.path", "reward.second.reference_path"}
