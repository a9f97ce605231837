"""model=hf: any causal language model in a local folder or on the hub. Safetensors or GGUF; never pickle, never code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pggrpo_cli.model_outline import ModelOutline, outline_of_folder, outline_of_hub
from pggrpo_cli.policy import LoadedModel
from pggrpo_cli.weights import is_local, load_model


@dataclass(frozen=True, kw_only=True)
class Hf:
    """A folder (safetensors, or one GGUF file), a .gguf file, or a hub id such as "Qwen/Qwen2.5-0.5B-Instruct"."""

    path: str
    revision: str | None

    def load(self) -> LoadedModel:
        """Raises ConfigError `model.path` if files are missing or of a kind that is refused."""
        return load_model(self.path, self.revision, key="model.path")

    def outline(self) -> ModelOutline:
        if is_local(self.path):
            return outline_of_folder(Path(self.path).expanduser(), key="model.path")
        return outline_of_hub(self.path, self.revision, key="model.path")
