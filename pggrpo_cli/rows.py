"""Records of TRL's data formats to rows, with errors that name file, line and column.

prompt-only {"prompt"}; preference {"prompt", "chosen", "rejected"} or {"chosen", "rejected"} whose common beginning is
the prompt; demonstrations {"prompt", "completion"} or {"messages"}. Each plain (strings) or conversational (lists of
messages). Every other column goes to the rewards by name.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from pggrpo_cli.errors import DataError
from pggrpo_cli.types import Message, OfflineCompletion, Row

ROLES = ("system", "user", "assistant", "tool", "developer")
Content = str | list[Message]


def rows_from_records(
    records: Iterable[tuple[str, Mapping[str, Any]]],
    columns: Mapping[str, str],
    *,
    as_chat: bool,
    need_preference: bool,
) -> list[Row]:
    """records: (source such as "file.jsonl:12", record). `columns`: our name → the file's. Raises DataError."""
    return [
        _row(source, _renamed(source, record, columns), as_chat=as_chat, need_preference=need_preference)
        for source, record in records
    ]


def _renamed(source: str, record: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    for ours, theirs in columns.items():
        if theirs not in record:
            raise DataError(
                f"{source}: there is no column {theirs!r}, which data.columns.{ours} names; {_present(record, theirs)}"
            )
    back = {theirs: ours for ours, theirs in columns.items()}
    return {back.get(name, name): value for name, value in record.items()}


def _present(record: Mapping[str, Any], wanted: str) -> str:
    near = difflib.get_close_matches(wanted, [str(name) for name in record], n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"the columns are {', '.join(map(repr, record)) or 'none'}.{hint}"


def _row(source: str, record: dict[str, Any], *, as_chat: bool, need_preference: bool) -> Row:
    if "chosen" in record or "rejected" in record or need_preference:
        return _preference_row(source, record, as_chat)
    if "messages" in record and "prompt" not in record:
        messages = _content(source, "messages", record.pop("messages"))
        if not isinstance(messages, list) or not messages or messages[-1]["role"] != "assistant":
            raise DataError(f"{source}: column 'messages' must be a list of messages that ends with the assistant's.")
        demonstration = OfflineCompletion(content=messages[-1:], preference=None)
        return Row(prompt=messages[:-1], columns=record, completions=(demonstration,), source=source)
    if "prompt" not in record:
        raise DataError(
            f"{source}: there is no column 'prompt'; {_present(record, 'prompt')} "
            "Name it with data.columns.prompt=<column>."
        )
    prompt = _content(source, "prompt", record.pop("prompt"))
    completions: tuple[OfflineCompletion, ...] = ()
    if "completion" in record:
        content = _alike(source, "completion", _content(source, "completion", record.pop("completion")), prompt)
        completions = (OfflineCompletion(content=_as_answer(content, as_chat), preference=None),)
    return Row(prompt=_as_prompt(prompt, as_chat), columns=record, completions=completions, source=source)


def _preference_row(source: str, record: dict[str, Any], as_chat: bool) -> Row:
    for name in ("chosen", "rejected"):
        if name not in record:
            raise DataError(f"{source}: there is no column {name!r}; {_present(record, name)}")
    chosen = _content(source, "chosen", record.pop("chosen"))
    rejected = _content(source, "rejected", record.pop("rejected"))
    if "prompt" in record:
        prompt = _content(source, "prompt", record.pop("prompt"))
    else:
        prompt, chosen, rejected = _without_common_prompt(source, chosen, rejected)
    if chosen == rejected:
        raise DataError(f"{source}: 'chosen' and 'rejected' are the same; a pair needs two different completions.")
    pair = tuple(
        OfflineCompletion(content=_as_answer(_alike(source, name, content, prompt), as_chat), preference=value)
        for name, content, value in (("chosen", chosen, 1.0), ("rejected", rejected, 0.0))
    )
    return Row(prompt=_as_prompt(prompt, as_chat), columns=record, completions=pair, source=source)


def _without_common_prompt(source: str, chosen: Content, rejected: Content) -> tuple[Any, Any, Any]:
    """Implicit prompts: the common leading messages, or the common beginning of two texts."""
    if type(chosen) is not type(rejected):
        raise DataError(f"{source}: 'chosen' is text and 'rejected' is messages (or the reverse); they must be alike.")
    length = 0
    for one, other in zip(chosen, rejected, strict=False):
        if one != other:
            break
        length += 1
    if isinstance(chosen, str):
        # A word that both answers begin with belongs to the answers: cut at the last white space before.
        while length and not chosen[length - 1].isspace():
            length -= 1
    if length == 0:
        raise DataError(f"{source}: 'chosen' and 'rejected' have no common beginning to be the prompt; add 'prompt'.")
    return chosen[:length], chosen[length:], rejected[length:]


def _content(source: str, column: str, value: Any) -> Content:
    """Text or messages, checked."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        raise DataError(
            f"{source}: column {column!r} is {type(value).__name__ if value != [] else 'an empty list'}; "
            "allowed are text or a list of messages."
        )
    for message in value:
        if not isinstance(message, dict) or "role" not in message:
            raise DataError(f'{source}: column {column!r}: a message is {{"role": …, "content": …}}, not {message!r}.')
        if message["role"] not in ROLES:
            raise DataError(
                f"{source}: column {column!r}: unknown role {message['role']!r}; allowed are {', '.join(ROLES)}."
            )
        if not isinstance(message.get("content"), str | list):
            raise DataError(f"{source}: column {column!r}: the {message['role']}'s message has no text in 'content'.")
    return [dict(message) for message in value]


def _alike(source: str, column: str, content: Content, prompt: Content) -> Content:
    if isinstance(content, str) != isinstance(prompt, str):
        raise DataError(
            f"{source}: 'prompt' is {_kind(prompt)} and {column!r} is {_kind(content)}; they must be alike."
        )
    if not content:
        raise DataError(f"{source}: column {column!r} is empty.")
    return content


def _kind(content: Content) -> str:
    return "text" if isinstance(content, str) else "messages"


def _as_prompt(prompt: Content, as_chat: bool) -> Content:
    return [{"role": "user", "content": prompt}] if as_chat and isinstance(prompt, str) else prompt


def _as_answer(content: Content, as_chat: bool) -> Content:
    return [{"role": "assistant", "content": content}] if as_chat and isinstance(content, str) else content
