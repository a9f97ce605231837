"""JSON files that a run leaves behind, read by whoever only wants to know what they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_object(file: Path) -> dict[str, Any]:
    """What it holds; empty if it cannot be read or holds anything but an object: nothing may depend on it."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
