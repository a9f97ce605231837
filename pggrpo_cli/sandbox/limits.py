"""How much a program in a sandbox may use."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

FILE_BYTES = 32 << 20
"""Of a file, and of everything below the working folder together."""

OPEN_FILES = 64
ANSWER_BYTES = 8 << 20
"""Of one answer, such as what it prints for one test; a longer one ends the program."""

START_SECONDS = 60.0
"""For the sandbox and the interpreter to start, on however busy a machine."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Those of one process. Wall-clock time is not among them: whoever waits for an answer says until when."""

    cpu_seconds: int
    memory_mb: int
    """Address space."""

    def as_argument(self, processes: int, parent: int | None = None) -> str:
        """For inside.py, which sets them before anything else. `processes`: of this user, threads too; see each mode.
        `parent`: the process with which it is to end, where no sandbox sees to that."""
        fixed = {"file_bytes": FILE_BYTES, "open_files": OPEN_FILES, "processes": processes, "parent": parent}
        return json.dumps(asdict(self) | fixed)
