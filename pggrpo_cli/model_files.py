"""Digests of models on disk that a run scores with: their weights may lie in another process, but their files are here."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pggrpo_cli.data_files import MODELS_IN, is_local

READ = (
    "*.safetensors", "*.gguf", "config.json", "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*",
    "merges.txt", "*.model", "chat_template*",
)  # fmt: skip
"""Of a model folder, what a score depends on."""
WHOLE_BYTES = 1 << 20
"""A larger file is known by its size, its beginning, where safetensors names its tensors, and blocks spread over it: enough to
tell two models apart, and no minutes spent on it."""
BLOCKS = 256
BLOCK_BYTES = 256


def reward_model_files(rewards: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """By dotted key, such as reward.implicit.reference_path: the digest of the files that it names. A hub id has none."""
    paths = {
        f"reward.{name}.{key}": node[key]
        for name, node in rewards.items()
        for key in MODELS_IN.get(str(node["_target_"]), ())
        if node[key] is not None
    }
    return {key: files_digest(Path(path).expanduser()) for key, path in paths.items() if is_local(path)}


def files_digest(path: Path) -> str:
    """Of a .gguf file, or of a model folder wherever it lies."""
    found = {file for pattern in READ for file in path.glob(pattern) if file.is_file()} if path.is_dir() else {path}
    digest = hashlib.blake2b(digest_size=8)
    for file in sorted(found):
        size = file.stat().st_size
        digest.update(f"{file.name if path.is_dir() else ''} {size}\n".encode("utf-8", "surrogateescape"))
        with file.open("rb") as content:
            digest.update(content.read(WHOLE_BYTES))
            for place in range(WHOLE_BYTES, size, max((size - WHOLE_BYTES) // BLOCKS, BLOCK_BYTES)):
                content.seek(place)
                digest.update(content.read(BLOCK_BYTES))
    return digest.hexdigest()
