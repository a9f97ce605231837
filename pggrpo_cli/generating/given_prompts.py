"""Prompts that `pggrpo generate` is given: on the line, in a file, through a pipe; and which rows --rows means. No torch."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from pggrpo_cli.config import NAMED_GROUPS, SECTIONS, SINGLE_GROUPS
from pggrpo_cli.data_files import existing_file
from pggrpo_cli.errors import DataError, UsageError
from pggrpo_cli.records import read_jsonl
from pggrpo_cli.rows import row_maker
from pggrpo_cli.suggestions import nearest
from pggrpo_cli.types import Row

KEYS = ("name", "seed", "device", *SINGLE_GROUPS, *NAMED_GROUPS, *SECTIONS, "experiment", "debug")
"""What the first part of a key may be."""
_KEY = re.compile(r"[+~]{0,2}([A-Za-z_]\w*)((?:[.@/]\w+)*)=")
ROWS = "3, 0:8, 5: or 0,2,7 (counted from 0)"


def divided_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """(prompts, key=value): a word is an override if a key of the configuration stands before its first `=`, or a dotted
    name. Raises UsageError for one word that nearly is one, or lacks its section."""
    prompts: list[str] = []
    overrides: list[str] = []
    for word in words:
        found = _KEY.match(word)
        removed = re.fullmatch(r"~[A-Za-z_][\w.]*", word)
        if removed or (found and (found[1] in KEYS or found[2])):
            overrides.append(word)
            continue
        if found and not re.search(r"\s", word) and (meant := _meant(found[1], words)):
            raise UsageError(
                f"`{word}`: there is no key {found[1]}. Did you mean {meant}? If it is a prompt, write it behind --."
            )
        prompts.append(word)
    return prompts, overrides


def _meant(name: str, words: Sequence[str]) -> str:
    """Keys whose first or last part is `name` or nearly, with " or " between them: those of the sampler first."""
    from pggrpo_cli.key_completions import known_keys

    known = sorted(known_keys("train", words), key=lambda key: not key.startswith("sampler."))
    last = {key: key.rpartition(".")[2] for key in known}
    exact = [name] if name in last.values() else []
    first = [] if exact else nearest(name, KEYS)
    close = exact or first or nearest(name, dict.fromkeys(last.values()))
    return " or ".join(first or [key for one in close for key in known if last[key] == one][:3])


def rows_of_texts(texts: Sequence[str]) -> list[Row]:
    """Raises UsageError for one that is empty."""
    for number, text in enumerate(texts, 1):
        if not text.strip():
            which = f"prompt {number}" if len(texts) > 1 else "the prompt"
            raise UsageError(f"`prompt`: {which} is empty; there is nothing to answer.")
    return [Row(prompt=text, source=f"prompt {number}") for number, text in enumerate(texts, 1)]


def rows_of_stdin() -> list[Row]:
    """All that is piped in, as one prompt."""
    try:
        text = "" if sys.stdin is None else sys.stdin.read()
    except UnicodeDecodeError as error:
        raise DataError(f"`stdin`: not UTF-8 (byte {error.start + 1}); convert it.") from error
    if not text.strip():
        raise UsageError(
            "`prompt`: there is none: no word on the line, no --file, no --data, and nothing was piped in. "
            'Give one: pggrpo generate RUN "3 + 4 ="'
        )
    return [Row(prompt=text.removesuffix("\n").removesuffix("\r"), source="stdin")]


def rows_of_file(path: str) -> list[Row]:
    """A prompt a line; of a .jsonl file a record a line with a column prompt or messages. `-`: lines of stdin.

    Raises ConfigError if there is no such file, DataError naming file and line.
    """
    if path.lower().endswith((".jsonl", ".ndjson")):
        make = row_maker({}, as_chat=False, need_preference=False)
        rows = [make(source, _open_ended(record)) for source, record in read_jsonl(path, "--file")]
    else:
        rows = [Row(prompt=text, source=source) for source, text in _lines(path)]
    if not rows:
        raise DataError(f"`--file`: {'stdin' if path == '-' else path} holds no prompt.")
    for row in rows:
        if not row.prompt or (isinstance(row.prompt, str) and not row.prompt.strip()):
            raise DataError(f"{row.source}: the prompt is empty.")
    return rows


def _open_ended(record: dict[str, Any]) -> dict[str, Any]:
    """A conversation that waits for the assistant is a prompt; one that ends with the assistant's turn has its answer."""
    messages = record.get("messages")
    if "prompt" in record or not isinstance(messages, list) or not messages:
        return record
    last = messages[-1]
    if isinstance(last, dict) and last.get("role") == "assistant":
        return record
    return {"prompt": messages} | {name: value for name, value in record.items() if name != "messages"}


def _lines(path: str) -> Iterator[tuple[str, str]]:
    """(file:line, text) of those that are not blank."""
    if path == "-":
        raw = b"" if sys.stdin is None else sys.stdin.buffer.read()
    else:
        raw = existing_file(path, "--file").read_bytes()
    for number, line in enumerate(raw.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        source = f"{'stdin' if path == '-' else path}:{number}"
        try:
            text = line.decode("utf-8").rstrip("\r")
        except UnicodeDecodeError as error:
            raise DataError(f"{source}: not UTF-8 (byte {error.start + 1} of the line); convert the file.") from error
        if text.strip():
            yield source, text


def refuse_rows(text: str) -> None:
    """Raises UsageError unless it is what `places` reads."""
    if not re.fullmatch(r"\d+(,\d+)*|\d*:\d*", text):
        raise UsageError(f"`--rows`: {text!r} is none of {ROWS}.")
    first, colon, last = text.partition(":")
    if colon and first and last and int(first) >= int(last):
        raise UsageError(f"`--rows`: {text} holds none: rows go from the first up to, without, the second number.")


def places(text: str, total: int, what: str) -> list[int]:
    """The rows of `total` that `text` means; `what` they are, for people. Raises UsageError if one is not there."""
    first, colon, last = text.partition(":")
    if colon:
        found = list(range(total))[int(first or 0) : int(last) if last else None]
    else:
        found = [int(one) for one in text.split(",")]
    if not found or max(found) >= total:
        raise UsageError(f"`--rows`: {text} is not there: there are {total} {what}, 0 to {total - 1}.")
    return found


def as_message(row: Row) -> Row:
    """A text as a user's message."""
    return replace(row, prompt=[{"role": "user", "content": row.prompt}]) if isinstance(row.prompt, str) else row
