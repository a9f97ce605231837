"""Weights and tokenizers from disk or hub, with everything that could run code refused before it is opened."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from pggrpo_cli.errors import ConfigError
from pggrpo_cli.policy import LoadedModel

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def load_folder(path: Path, key: str, *, weights: bool = True) -> LoadedModel:
    """A model folder or a .gguf file → module in float32 and tokenizer. Raises ConfigError starting with `key`.

    Without `weights` the module is on the meta device: its shapes, and no memory or time for its numbers.
    """
    if path.suffix == ".gguf":
        return load_gguf(path, key, weights=weights)
    if not path.exists():
        raise ConfigError(f"`{key}`: there is no folder {path}. Give a model folder, a .gguf file or a hub id.")
    if not path.is_dir():
        raise ConfigError(f"`{key}`: {path} is a file; a model is a folder with config.json or a .gguf file.")
    gguf = sorted(path.glob("*.gguf"))
    if not any(path.glob("*.safetensors")) and len(gguf) == 1:
        return load_gguf(gguf[0], key, weights=weights)
    refuse_unsafe(path, key)
    return _from_pretrained(str(path), None, key, weights=weights)


def load_hub(name: str, revision: str | None, key: str, *, weights: bool = True) -> LoadedModel:
    """A hub id, from the local hub cache or the network. Raises ConfigError starting with `key`."""
    return _from_pretrained(name, revision, key, weights=weights)


def load_gguf(path: Path, key: str, *, weights: bool = True) -> LoadedModel:
    """A GGUF file, dequantised to float32."""
    if not path.exists():
        raise ConfigError(f"`{key}`: there is no file {path}.")
    try:
        import gguf  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"`{key}`: reading {path.name} needs gguf: pip install 'pggrpo[gguf]'") from error
    loaded = _from_pretrained(str(path.parent), None, key, gguf_file=path.name, weights=weights)
    # What was dequantised is no longer quantised; saved with the key, the folder would not load again.
    if hasattr(loaded.module.config, "quantization_config"):
        del loaded.module.config.quantization_config
    loaded.module.hf_quantizer = None
    return LoadedModel(module=loaded.module, tokenizer=loaded.tokenizer, source=str(path))


def refuse_unsafe(path: Path, key: str) -> None:
    config_file = path / "config.json"
    if not config_file.exists():
        present = ", ".join(sorted(entry.name for entry in path.iterdir())[:8]) or "nothing"
        raise ConfigError(f"`{key}`: {path} has no config.json (it holds: {present}); it is no model folder.")
    try:
        config: dict[str, Any] = json.loads(config_file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"`{key}`: {config_file} is not valid JSON: {error}") from error
    if "auto_map" in config:
        raise ConfigError(
            f"`{key}`: {path} brings its own Python code (auto_map in config.json), which is never run. "
            "Use a model that transformers itself knows."
        )
    if any(path.glob("*.safetensors")):
        return
    pickled = sorted(file.name for pattern in PICKLES for file in path.glob(pattern))
    if pickled:
        raise ConfigError(
            f"`{key}`: {path} holds its weights as pickle ({pickled[0]}), which can run code when read and is refused. "
            "Only safetensors and GGUF are read. Convert it once, where you trust it: "
            'python -c "from transformers import AutoModelForCausalLM as M; '
            f"M.from_pretrained('{path}').save_pretrained('{path}-safetensors')\""
        )
    raise ConfigError(f"`{key}`: {path} has no *.safetensors file (nor one .gguf); its weights are missing.")


def _from_pretrained(
    name: str, revision: str | None, key: str, gguf_file: str | None = None, *, weights: bool = True
) -> LoadedModel:
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # it would tear the display
    options: dict[str, Any] = {"trust_remote_code": False}
    if revision is not None:
        options["revision"] = revision
    if os.path.isdir(name):
        options["local_files_only"] = True
    if gguf_file is not None:
        options["gguf_file"] = gguf_file
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **options)
        if weights:
            module = AutoModelForCausalLM.from_pretrained(
                name, dtype=torch.float32, **({} if gguf_file else {"use_safetensors": True}), **options
            )
        else:
            module = _without_weights(name, options)
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        reason = " ".join(str(error).split())[:300]
        hint = "" if os.path.isdir(name) else " If it is meant as a folder, no such folder exists here."
        raise ConfigError(f"`{key}`: cannot load {name!r}: {reason}{hint}") from error
    return LoadedModel(module=module, tokenizer=tokenizer, source=name)


def _without_weights(name: str, options: dict[str, Any]) -> Any:
    """The module on the meta device, with its generation configuration where there is one."""
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    config = AutoConfig.from_pretrained(name, **options)
    with torch.device("meta"):
        module = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with suppress(OSError):  # many models have no such file
        module.generation_config = GenerationConfig.from_pretrained(
            name, **{key: value for key, value in options.items() if key in ("revision", "local_files_only")}
        )
    return module
