"""Whether the Hugging Face hub can be reached at all, asked once before something is read from it.

Where no name is resolved or every connection is refused, its library prints retries for half a minute and more for each file
before it gives up. A network that is only slow answers nothing here and is left to the library's own patience.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

TRY_FOR_S = 3.0
"""A resolver or a mirror that is away for a moment is asked again until then."""
PAUSE_S = 1.0
SLOW_S = 5.0
"""An answer that takes longer says that the hub is slow, not that it is away."""
NO_WAY = {errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN}


def unreachable() -> str | None:
    """Why no connection to the hub (or what HF_ENDPOINT names) can be made; None if one can, if it is slow, or if the
    user has switched it off, which its library says itself."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if constants.HF_HUB_OFFLINE:
        return None
    began = time.monotonic()
    while True:
        asked = time.monotonic()
        try:
            get_session().head(constants.ENDPOINT, timeout=SLOW_S)
        except Exception as error:  # of the library's library, which has changed; below it lies the system's own
            reason = _no_way(error, time.monotonic() - asked)
        else:
            return None
        if reason is None or time.monotonic() - began + PAUSE_S > TRY_FOR_S:
            return None if reason is None else f"{constants.ENDPOINT} cannot be reached ({reason})"
        time.sleep(PAUSE_S)


def _no_way(error: BaseException | None, seconds: float) -> str | None:
    """The system's own words for a host without address or a connection that nobody takes, anywhere below `error`. One that
    came late is that of a host's last address, and an earlier one was slow."""
    while error is not None:
        late = seconds >= SLOW_S
        if isinstance(error, socket.gaierror) or (isinstance(error, OSError) and error.errno in NO_WAY and not late):
            return str(error.strerror or error)
        error = error.__cause__ or error.__context__
    return None


def not_cached(unreachable: str) -> str:
    return f"{unreachable}, and the hub's cache on this machine does not hold all of it."


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """How transformers reads a folder or a hub id, and why it could not."""

    options: dict[str, Any]
    """Keywords of every from_pretrained: from the disk alone where there is nothing else."""
    unreachable: str | None

    def reason(self, error: Exception) -> str:
        """One line."""
        if self.unreachable and isinstance(error, OSError):
            return not_cached(self.unreachable)
        return " ".join(str(error).split())[:300]


def reading(name: str, revision: str | None) -> Reading:
    """Of the folder, file or hub id `name`."""
    local = os.path.exists(name)
    away = None if local else unreachable()
    options: dict[str, Any] = {"trust_remote_code": False}
    if revision is not None:
        options["revision"] = revision
    if local or away:
        options["local_files_only"] = True
    return Reading(options=options, unreachable=away)


@contextmanager
def datasets_from_cache(datasets: Any, unreachable: str | None) -> Iterator[None]:
    """The library `datasets` within: as it is, or, where the hub is out of reach, from its cache without asking."""
    former = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = former or unreachable is not None
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = former
