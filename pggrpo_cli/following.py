"""A file that another process writes line by line, read as it grows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Following:
    """Gives each whole line once. A file that became shorter (a run that was resumed from an earlier step) is followed
    from its new end: what stood there before is still known to whoever read it."""

    def __init__(self, file: Path, *, last_bytes: int | None = None) -> None:
        """`last_bytes`: begin at most so far before the end; the line that this cuts is left out."""
        self._file = file
        self._offset = 0
        self._cut = False
        size = _size(file)
        if last_bytes is not None and size > last_bytes:
            self._offset, self._cut = size - last_bytes, True

    def new(self) -> Iterator[dict[str, Any]]:
        """The objects of the lines that are whole by now; other lines are passed over."""
        size = _size(self._file)
        if size < self._offset:
            self._offset, self._cut = size, False
        if size == self._offset:
            return
        with open(self._file, "rb") as file:
            file.seek(self._offset)
            for raw in file:
                if not raw.endswith(b"\n"):
                    break
                self._offset += len(raw)
                if self._cut:
                    self._cut = False
                    continue
                try:
                    record = json.loads(raw)
                except (ValueError, RecursionError):
                    continue
                if isinstance(record, dict):
                    yield record


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0
