"""Tokenizer, context and end tokens without weights are those that the policy has."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file

from pggrpo_cli.errors import ConfigError
from pggrpo_cli.model.hf import Hf
from pggrpo_cli.model.smollm2_135m import Smollm2135m
from tests.conftest import tiny_model, tiny_policy


@pytest.mark.parametrize("generation_config", [True, False])
def test_of_a_folder_without_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, generation_config: bool
) -> None:
    policy = tiny_policy()
    policy.module.generation_config.eos_token_id = [7, policy.tokenizer.eos_token_id]
    folder = tmp_path / "smollm2_135m"
    policy.module.save_pretrained(folder)
    policy.tokenizer.save_pretrained(folder)
    assert load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    if not generation_config:
        (folder / "generation_config.json").unlink()
    monkeypatch.setenv("PGGRPO_CACHE", str(tmp_path))
    for found in (
        Hf(path=str(folder), revision=None).outline(),
        Smollm2135m(hub_id="no/such", package="no_such").outline(),
    ):
        assert found.context_length == policy.context_length == 256
        ends = policy.end_token_ids if generation_config else (policy.tokenizer.eos_token_id,)
        assert found.end_token_ids == ends
        assert found.tokenizer("<|user|>a")["input_ids"] == policy.tokenizer("<|user|>a")["input_ids"]


def test_of_the_tiny_model() -> None:
    found, policy = tiny_model().outline(), tiny_policy()
    assert (found.context_length, found.end_token_ids) == (policy.context_length, policy.end_token_ids)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"`model.path`: there is no folder .*nowhere"):
        Hf(path=f"{tmp_path}/nowhere", revision=None).outline()
    with pytest.raises(ConfigError, match=r"`model.path`: cannot read the tokenizer and config of"):
        Hf(path=str(tmp_path), revision=None).outline()
