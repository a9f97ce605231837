"""model=hf: any causal language model in a local folder or on the hub. Safetensors or GGUF; never pickle, never code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pggrpo_cli.policy import LoadedModel
from pggrpo_cli.weights import load_folder, load_hub


@dataclass(frozen=True, kw_only=True)
class Hf:
    """A folder (safetensors, or one GGUF file), a .gguf file, or a hub id such as "Qwen/Qwen2.5-0.5B-Instruct"."""

    path: str
    revision: str | None

    def load(self) -> LoadedModel:
        """Raises ConfigError `model.path` if files are missing or of a kind that is refused."""
        return self._open(weights=True)

    def outline(self) -> LoadedModel:
        """The same without its weights."""
        return self._open(weights=False)

    def _open(self, *, weights: bool) -> LoadedModel:
        local = Path(self.path).expanduser()
        looks_local = self.path.startswith((".", "/", "~")) or self.path.endswith(".gguf")
        if looks_local or local.exists():
            return load_folder(local, key="model.path", weights=weights)
        return load_hub(self.path, self.revision, key="model.path", weights=weights)
