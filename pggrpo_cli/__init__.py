"""pggrpo: post-train language models with GRPO, DPO and PG-GRPO. `pggrpo_cli.train(cfg)` is `pggrpo train`."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "train"]


def __getattr__(name: str) -> Any:
    # Lazy: `import pggrpo_cli` must stay free of torch, for `pggrpo --help` and for configuration errors.
    if name == "train":
        from pggrpo_cli.training import train

        return train
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
