"""Small files that are whole or as they were: written beside, flushed, then renamed."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def write_whole(file: Path, text: str) -> None:
    """Whoever reads `file` finds the old text or the new one, never a part. Raises OSError; then the old one stands."""
    temporary = file.with_name(f".{file.name}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
