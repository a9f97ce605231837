"""Weights and tokenizers from disk or hub, with everything that could run code refused before it is opened."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import torch

from pggrpo_cli.data_files import is_local
from pggrpo_cli.errors import ConfigError
from pggrpo_cli.hub import reading
from pggrpo_cli.policy import LoadedModel

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
Kind = Literal["AutoModelForCausalLM", "AutoModelForSequenceClassification"]
"""What of transformers reads it."""


def load_model(path: str, revision: str | None, key: str) -> LoadedModel:
    """A model folder, a .gguf file or a hub id → module in float32 and tokenizer. Raises ConfigError starting with
    `key`."""
    local = Path(path).expanduser()
    return load_folder(local, key) if is_local(path) else load_hub(path, revision, key)


def load_classifier(path: str, revision: str | None, key: str, dtype: torch.dtype) -> LoadedModel:
    """The same for a sequence classifier, such as a reward model, in `dtype`; a folder or a hub id."""
    local = Path(path).expanduser()
    kind: Kind = "AutoModelForSequenceClassification"
    if not is_local(path):
        return _from_pretrained(path, revision, key, kind=kind, dtype=dtype)
    if path.endswith(".gguf"):
        raise ConfigError(
            f"`{key}`: {path} is a GGUF file, which holds no score head. Give a model folder or a hub id."
        )
    if not local.is_dir():
        raise ConfigError(f"`{key}`: there is no folder {path}. Give a model folder or a hub id.")
    refuse_unsafe(local, key, kind)
    return _from_pretrained(str(local), None, key, kind=kind, dtype=dtype)


def load_folder(path: Path, key: str) -> LoadedModel:
    """A model folder or a .gguf file → module in float32 and tokenizer. Raises ConfigError starting with `key`."""
    if path.suffix == ".gguf":
        return load_gguf(path, key)
    if not path.exists():
        raise ConfigError(f"`{key}`: there is no folder {path}. Give a model folder, a .gguf file or a hub id.")
    if not path.is_dir():
        raise ConfigError(f"`{key}`: {path} is a file; a model is a folder with config.json or a .gguf file.")
    gguf = sorted(path.glob("*.gguf"))
    if not any(path.glob("*.safetensors")) and len(gguf) == 1:
        return load_gguf(gguf[0], key)
    refuse_unsafe(path, key)
    return _from_pretrained(str(path), None, key)


def load_hub(name: str, revision: str | None, key: str) -> LoadedModel:
    """A hub id, from the local hub cache or the network. Raises ConfigError starting with `key`."""
    return _from_pretrained(name, revision, key)


def load_gguf(path: Path, key: str) -> LoadedModel:
    """A GGUF file, dequantised to float32."""
    if not path.exists():
        raise ConfigError(f"`{key}`: there is no file {path}.")
    for name in ("gguf", "accelerate"):  # transformers reads GGUF with both
        if find_spec(name) is None:
            raise ConfigError(f"`{key}`: reading {path.name} needs {name}: pip install 'pggrpo[gguf]'")
    with redirect_stderr(StringIO()):  # a bar of transformers' own that no setting turns off
        loaded = _from_pretrained(str(path.parent), None, key, gguf_file=path.name)
    # What was dequantised is no longer quantised; saved with the key, the folder would not load again.
    if hasattr(loaded.module.config, "quantization_config"):
        del loaded.module.config.quantization_config
    loaded.module.hf_quantizer = None
    return LoadedModel(module=loaded.module, tokenizer=loaded.tokenizer, source=str(path))


def refuse_unsafe(path: Path, key: str, kind: Kind = "AutoModelForCausalLM") -> None:
    """Raises ConfigError for a folder that is no model, holds pickles only, or brings code."""
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
            f'python -c "from transformers import {kind} as M; '
            f"M.from_pretrained('{path}').save_pretrained('{path}-safetensors')\""
        )
    raise ConfigError(f"`{key}`: {path} has no *.safetensors file (nor one .gguf); its weights are missing.")


def _from_pretrained(
    name: str,
    revision: str | None,
    key: str,
    gguf_file: str | None = None,
    kind: Kind = "AutoModelForCausalLM",
    dtype: torch.dtype = torch.float32,
) -> LoadedModel:
    import transformers

    transformers.utils.logging.disable_progress_bar()  # it would tear the display
    source = reading(name, revision)
    options = source.options | ({} if gguf_file is None else {"gguf_file": gguf_file})
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, **options)
        with _unreported():
            module, info = getattr(transformers, kind).from_pretrained(
                name,
                dtype=dtype,
                output_loading_info=True,
                **({} if gguf_file else {"use_safetensors": True}),
                **options,
            )
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        hint = "" if os.path.isdir(name) else " If it is meant as a folder, no such folder exists here."
        raise ConfigError(f"`{key}`: cannot load {name!r}: {source.reason(error)}{hint}") from error
    if gguf_file is None:
        _refuse_incomplete(name, key, kind, module, sorted(info["missing_keys"]))
    return LoadedModel(module=module, tokenizer=tokenizer, source=name)


@contextmanager
def _unreported() -> Iterator[None]:
    """transformers' own report of missing weights would stand before our refusal, which says the same."""
    import transformers

    former = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers.utils.logging.set_verbosity(former)


def _refuse_incomplete(name: str, key: str, kind: Kind, module: Any, missing: list[str]) -> None:
    """transformers fills in at random what the files do not hold, such as the score head of a language model."""
    if not missing:
        return
    listed = ", ".join(missing[:4]) + (" …" if len(missing) > 4 else "")
    saved_as = ", ".join(getattr(module.config, "architectures", None) or ["unknown"])
    meant = (
        "It is no reward model: give one that was trained as a sequence classifier."
        if kind == "AutoModelForSequenceClassification"
        else "Give a whole causal language model."
    )
    raise ConfigError(
        f"`{key}`: {name} holds no weights for {listed}, which would be made up at random (its architecture: {saved_as}). "
        f"{meant}"
    )
