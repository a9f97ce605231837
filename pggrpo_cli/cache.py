"""Where pggrpo keeps what can be made again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """$PGGRPO_CACHE, else pggrpo in $XDG_CACHE_HOME or ~/.cache."""
    if "PGGRPO_CACHE" in os.environ:
        return Path(os.environ["PGGRPO_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pggrpo"
