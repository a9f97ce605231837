"""The errors a user meets, each with its exit code. Everything else is a bug and keeps its traceback.

Exit codes: 0 done · 1 a bug · 2 usage, configuration, data or a user's own code · 3 training diverged ·
4 no usable checkpoint · 5 the run directory is in use · 75 stopped early, saved, resumable · 130, 143 ended at once by
a signal.
"""

from __future__ import annotations

from collections.abc import Mapping


class PggrpoError(Exception):
    """`str(error)` is one paragraph for stderr: dotted key, what is wrong, what is allowed, what to do."""

    exit_code = 1


class UsageError(PggrpoError):
    """A command line that cannot be understood."""

    exit_code = 2


class ConfigError(PggrpoError):
    """A configuration that cannot run. The message starts with the dotted key."""

    exit_code = 2


class DataError(PggrpoError):
    """A data set that cannot be read; names file, line and column."""

    exit_code = 2


class UserCodeError(PggrpoError):
    """A user's own reward raised or returned nonsense; `__cause__` carries its traceback."""

    exit_code = 2


class Unavailable(PggrpoError):
    """A server that a reward asks does not answer. Nothing is wrong with the run: once there is something to resume, it
    is saved and stops with StoppedEarly."""

    exit_code = 2


class RewardTraceback(Exception):
    """The cause of a UserCodeError: the traceback of a reward, perhaps of another process, as text."""


class DivergedError(PggrpoError):
    """Training produced NaN or infinity too often in a row."""

    exit_code = 3


class OutOfMemory(PggrpoError):
    """Memory ran out, and no smaller piece of work is left to try."""

    exit_code = 2


class CheckpointError(PggrpoError):
    """No checkpoint that can be used."""

    exit_code = 4


class RunLockedError(PggrpoError):
    """Another process holds the run directory."""

    exit_code = 5


class StoppedEarly(PggrpoError):
    """A signal asked the run to stop; it is saved and resumable."""

    exit_code = 75


class TimeIsUp(StoppedEarly):
    """trainer.max_minutes are over. The jobs of a sweep go on after one whose time is up."""

    def __init__(self, message: str, metrics: Mapping[str, float]) -> None:
        super().__init__(message)
        self.metrics = metrics
