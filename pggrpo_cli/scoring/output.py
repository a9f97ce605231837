"""What rewards print in their processes: into a file of limited size, never onto the display."""

from __future__ import annotations

import os
import threading
from pathlib import Path

LIMIT = 1_000_000
"""Bytes kept of a run's rewards.log; the rest is read and dropped, so that a talkative reward neither fills the disk nor
waits."""
REWARDS_LOG = "rewards.log"


class Output:
    """Thread-safe. `run_dir` None: nothing is written; what there would be is in `kept`."""

    def __init__(self, run_dir: Path | None) -> None:
        self._file = None if run_dir is None else run_dir / REWARDS_LOG
        self.kept = bytearray()
        self._left = LIMIT
        self._lock = threading.Lock()

    def take(self, descriptor: int) -> bytes:
        """Reads what is there and keeps it; empty at the end."""
        data = os.read(descriptor, 1 << 16)
        with self._lock:
            self._write(data)
        return data

    def _write(self, data: bytes) -> None:
        if not data or self._left <= 0:
            return
        kept = data[: self._left]
        self._left -= len(kept)
        if self._file is None:
            self.kept += kept
            return
        if self._left <= 0:
            kept += b"\n[the rest of what the rewards print is not kept]\n"
        try:
            with open(self._file, "ab") as file:
                file.write(kept)
        except OSError:
            self._left = 0  # a full disk must not stop a reward
