"""What is known of a model without its weights: tokenizer, context, end tokens, size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pggrpo_cli.errors import ConfigError
from pggrpo_cli.hub import reading


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelOutline:
    tokenizer: Any
    config: Any
    """transformers' configuration of the model."""
    end_token_ids: tuple[int, ...]

    @property
    def context_length(self) -> int:
        return context_length(self.config)

    def module(self) -> Any:
        """On the meta device: shapes, and no memory or time for their numbers."""
        import torch
        from transformers import AutoModelForCausalLM

        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(self.config, dtype=torch.float32)

    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.module().parameters())


def outline(tokenizer: Any, config: Any, generation_config: Any) -> ModelOutline:
    """From transformers' configurations of the model."""
    return ModelOutline(tokenizer=tokenizer, config=config, end_token_ids=end_token_ids(generation_config, tokenizer))


def outline_of(model: Any) -> ModelOutline:
    """Of a component of the group `model`. The weights of a class of the user's that knows only the whole are loaded."""
    if hasattr(model, "outline"):
        found: ModelOutline = model.outline()
        return found
    loaded = model.load()
    return outline(loaded.tokenizer, loaded.module.config, loaded.module.generation_config)


def outline_of_folder(path: Path, key: str) -> ModelOutline:
    """A model folder or a .gguf file. Raises ConfigError starting with `key`."""
    if not path.exists():
        raise ConfigError(f"`{key}`: there is no folder {path}. Give a model folder, a .gguf file or a hub id.")
    gguf = [path] if path.suffix == ".gguf" else sorted(path.glob("*.gguf"))
    if len(gguf) == 1 and not any(path.glob("*.safetensors")):
        return _from_pretrained(str(gguf[0].parent), None, key, gguf[0].name)
    return _from_pretrained(str(path), None, key)


def outline_of_hub(name: str, revision: str | None, key: str) -> ModelOutline:
    return _from_pretrained(name, revision, key)


def model_config(path: str, revision: str | None, key: str) -> Any:
    """transformers' configuration of a model folder or a hub id. Raises ConfigError starting with `key`."""
    from transformers import AutoConfig

    local = Path(path).expanduser()
    name = str(local) if local.exists() else path
    source = reading(name, revision)
    try:
        return AutoConfig.from_pretrained(name, **source.options)
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise ConfigError(f"`{key}`: cannot read the config of {path!r}: {source.reason(error)}") from error


def context_length(config: Any) -> int:
    """Tokens; very many if the configuration does not say."""
    return int(getattr(config.get_text_config(), "max_position_embeddings", 0) or 1 << 30)


def end_token_ids(generation_config: Any, tokenizer: Any) -> tuple[int, ...]:
    """Every id that ends a completion, from the generation configuration and the tokenizer, ascending."""
    configured = getattr(generation_config, "eos_token_id", None)
    ids = {configured} if isinstance(configured, int) else set(configured or ())
    if tokenizer.eos_token_id is not None:
        ids.add(tokenizer.eos_token_id)
    return tuple(sorted(ids))


def _from_pretrained(name: str, revision: str | None, key: str, gguf_file: str | None = None) -> ModelOutline:
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    source = reading(name, revision)
    options = source.options
    of_file = {} if gguf_file is None else {"gguf_file": gguf_file}
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **options, **of_file)
        config = AutoConfig.from_pretrained(name, **options, **of_file)
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise ConfigError(
            f"`{key}`: cannot read the tokenizer and config of {name!r}: {source.reason(error)}"
        ) from error
    try:
        generation_config = GenerationConfig.from_pretrained(name, **options)
    except OSError:  # a model need not have one; then its configuration says what ends a text, as for the model itself
        generation_config = config
    return outline(tokenizer, config, generation_config)
