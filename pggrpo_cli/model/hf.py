"""model=hf: any causal language model in a local folder or on the hub. Safetensors or GGUF; never pickle, never code."""

from __future__ import annotations

from dataclasses import dataclass

from pggrpo_cli.policy import LoadedModel
from pggrpo_cli.weights import load_model


@dataclass(frozen=True, kw_only=True)
class Hf:
    """A folder (safetensors, or one GGUF file), a .gguf file, or a hub id such as "Qwen/Qwen2.5-0.5B-Instruct"."""

    path: str
    revision: str | None

    def load(self) -> LoadedModel:
        """Raises ConfigError `model.path` if files are missing or of a kind that is refused."""
        return load_model(self.path, self.revision, key="model.path")
