"""Answers of a model kept on disk, so that a resumed run scores alike and pays for nothing twice."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from pggrpo_cli.errors import ConfigError
from pggrpo_cli.warn import warn

WAIT_SECONDS = 60.0
"""For another process that writes."""


class AnswerCache:
    """Texts by key in an SQLite file, which several processes may use at once. Each call opens the file anew."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._warned: set[str] = set()

    def look(self) -> None:
        """Makes the file if there is none. Raises sqlite3.Error."""
        with self._connection() as connection:
            connection.execute("SELECT answer FROM answers WHERE key = ''").fetchone()

    def get(self, keys: Sequence[str]) -> dict[str, str]:
        """What is there of `keys`. A file that cannot be read, such as one that is locked, is a warning: all is asked."""
        found = {}
        try:
            with self._connection() as connection:
                for key in keys:
                    row = connection.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
                    if row is not None:
                        found[key] = str(row[0])
        except sqlite3.Error as error:
            self._warn_once("read", f"{self._path}: {error}; while this is so, what was answered before is asked again")
        return found

    def put(self, answers: dict[str, str]) -> None:
        """Keeps them; the first answer to a key stands. A disk that is full is a warning: the scores are there."""
        try:
            with self._connection() as connection:
                connection.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?)", answers.items())
                connection.commit()
        except sqlite3.Error as error:
            words = f"{self._path}: {error}; answers are not kept while this is so, a resumed run would ask again"
            self._warn_once("write", words)

    def _warn_once(self, what: str, words: str) -> None:
        if what not in self._warned:
            self._warned.add(what)
            warn(words)

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._path, timeout=WAIT_SECONDS)) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL)")
            yield connection


def open_cache(path: Path, key: str) -> AnswerCache:
    """Raises ConfigError naming the configuration's `key` if the file is none, or cannot be made."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        cache = AnswerCache(path)
        cache.look()
    except (OSError, sqlite3.Error) as error:
        raise ConfigError(
            f"`{key}`: {path} cannot be used: {error}. Give another path, or {key}=null for no cache."
        ) from error
    return cache
