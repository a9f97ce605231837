"""Folders that load, and folders that must not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pggrpo_cli.errors import ConfigError
from pggrpo_cli.model.hf import Hf
from tests.conftest import tiny_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    loaded = tiny_model().load()
    loaded.module.save_pretrained(tmp_path / "m")
    loaded.tokenizer.save_pretrained(tmp_path / "m")
    return tmp_path / "m"


def load(path: Path | str) -> object:
    return Hf(path=str(path), revision=None).load()


def test_a_saved_folder_loads_bit_for_bit(folder: Path) -> None:
    loaded = Hf(path=str(folder), revision=None).load()
    for one, other in zip(loaded.module.parameters(), tiny_model().load().module.parameters(), strict=True):
        assert torch.equal(one, other)
    assert loaded.tokenizer.chat_template


@pytest.mark.parametrize("path", ["./none", "/none/at/all", "~/none_of_this_name", "none.gguf"])
@pytest.mark.fault("T27")
def test_missing_folders(path: str) -> None:
    with pytest.raises(ConfigError, match=r"`model.path`: there is no"):
        load(path)


@pytest.mark.fault("T27")
def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ConfigError, match=r"has no config.json \(it holds: notes.txt\)"):
        load(tmp_path)


@pytest.mark.fault("T28")
def test_pickled_weights_are_refused_unopened(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    canary = tmp_path / "canary"
    malicious = b"cos\nsystem\n(S'touch " + str(canary).encode() + b"'\ntR."
    (folder / "pytorch_model.bin").write_bytes(malicious)
    with pytest.raises(ConfigError, match=r"pickle \(pytorch_model.bin\).*save_pretrained"):
        load(folder)
    assert not canary.exists()


@pytest.mark.fault("T29")
def test_code_in_the_folder_is_refused_unrun(folder: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    (folder / "modeling_evil.py").write_text(f"open({str(canary)!r}, 'w')")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "modeling_evil.Evil"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="brings its own Python code"):
        load(folder)
    assert not canary.exists()


@pytest.mark.fault("T27")
def test_missing_weights_and_broken_config(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"has no \*.safetensors file"):
        load(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="not valid JSON"):
        load(folder)


@pytest.mark.fault("T27")
def test_weights_that_would_be_made_up_are_refused(folder: Path) -> None:
    """transformers fills in at random what is not there."""
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.0.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"`model.path`.*no weights for model.layers.0.mlp.up_proj.weight"):
        load(folder)
