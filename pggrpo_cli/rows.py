"""Records of TRL's data formats to rows, with errors that name file, line and column.

prompt-only {"prompt"}; preference {"prompt", "chosen", "rejected"} or {"chosen", "rejected"} whose common beginning is
the prompt; demonstrations {"prompt", "completion"} or {"messages"}. Each plain (strings) or conversational (lists of
messages). Where a text prompt stands beside chosen and rejected that are whole conversations (UltraFeedback), their
common messages are the prompt, as in TRL. Every other column goes to the rewards by name.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pggrpo_cli.errors import DataError
from pggrpo_cli.nested import ABSENT, names_beside, value_at
from pggrpo_cli.types import Message, OfflineCompletion, Row

ROLES = ("system", "user", "assistant", "tool", "developer")
Content = str | list[Message]
OURS = ("prompt", "completion", "messages", "chosen", "rejected")
"""Columns that make a row; every other one is for rewards."""


def rows_from_records(
    records: Iterable[tuple[str, Mapping[str, Any]]],
    columns: Mapping[str, str],
    *,
    as_chat: bool,
    need_preference: bool,
) -> list[Row]:
    """records: (source such as "file.jsonl:12", record). Raises DataError.

    `columns`: our name → the file's, which may be a dotted one, such as reward_model.ground_truth; a column of the file
    that has the name already gives way to the mapped one.
    """
    make = row_maker(columns, as_chat=as_chat, need_preference=need_preference)
    return [make(source, record) for source, record in records]


def row_maker(
    columns: Mapping[str, str], *, as_chat: bool, need_preference: bool
) -> Callable[[str, Mapping[str, Any]], Row]:
    """One (source, record) to its row."""

    def make(source: str, record: Mapping[str, Any]) -> Row:
        renamed = _renamed(source, record, columns)
        try:
            return _row(source, renamed, as_chat=as_chat, need_preference=need_preference)
        except DataError as error:
            meant = _misspelt(columns, renamed)
            raise DataError(f"{error} {meant}") if meant else error from None

    return make


def _renamed(source: str, record: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    mapped = {ours: value_at(record, theirs) for ours, theirs in columns.items()}
    for ours, theirs in columns.items():
        if mapped[ours] is ABSENT:
            raise DataError(
                f"{source}: there is no column {theirs!r}, which data.columns.{ours} names; {_present(record, theirs)}"
            )
    gone = {*mapped, *columns.values()}
    return mapped | {name: value for name, value in record.items() if name not in gone}


def _misspelt(columns: Mapping[str, str], record: Mapping[str, Any]) -> str:
    """What is to be said of a name of ours in `columns` that is none, and is nearly one that the row lacks."""
    for ours in columns:
        near = difflib.get_close_matches(ours, [name for name in OURS if name not in record], n=1, cutoff=0.6)
        if near and ours not in OURS:
            return f"`data.columns.{ours}`: did you mean data.columns.{near[0]}?"
    return ""


def _present(record: Mapping[str, Any], wanted: str) -> str:
    outer, names = names_beside(record, wanted)
    near = difflib.get_close_matches(wanted.removeprefix(f"{outer}."), names, n=1, cutoff=0.5)
    found = f"{outer}.{near[0]}" if outer and near else near[0] if near else ""
    hint = f" Did you mean {found!r}?" if near else ""
    what = f"{outer!r} has" if outer else "the columns are"
    return f"{what} {', '.join(map(repr, names)) or 'none'}.{hint}"


def _row(source: str, record: dict[str, Any], *, as_chat: bool, need_preference: bool) -> Row:
    if "chosen" in record or "rejected" in record or need_preference:
        return _preference_row(source, record, as_chat)
    if "messages" in record and "prompt" not in record:
        messages = _content(source, "messages", record.pop("messages"))
        if not isinstance(messages, list) or messages[-1]["role"] != "assistant":
            raise DataError(f"{source}: column 'messages' must be a list of messages that ends with the assistant's.")
        if len(messages) < 2:
            raise DataError(f"{source}: column 'messages' has no message before the assistant's to be the prompt.")
        demonstration = OfflineCompletion(content=messages[-1:], preference=None)
        return Row(prompt=messages[:-1], columns=record, completions=(demonstration,), source=source)
    if "prompt" not in record:
        raise DataError(
            f"{source}: there is no column 'prompt'; {_present(record, 'prompt')} "
            "Name it with data.columns.prompt=<column>."
        )
    prompt = _as_prompt(_content(source, "prompt", record.pop("prompt")), as_chat)
    completions: tuple[OfflineCompletion, ...] = ()
    if "completion" in record:
        content = _as_answer(_content(source, "completion", record.pop("completion")), as_chat)
        completions = (OfflineCompletion(content=_answering(source, "completion", content, prompt), preference=None),)
    return Row(prompt=prompt, columns=record, completions=completions, source=source)


def _preference_row(source: str, record: dict[str, Any], as_chat: bool) -> Row:
    for name in ("chosen", "rejected"):
        if name not in record:
            raise DataError(f"{source}: there is no column {name!r}; {_present(record, name)}")
    chosen = _content(source, "chosen", record.pop("chosen"))
    rejected = _content(source, "rejected", record.pop("rejected"))
    if chosen == rejected:
        raise DataError(f"{source}: 'chosen' and 'rejected' are the same; a pair needs two different completions.")
    prompt = _content(source, "prompt", record.pop("prompt")) if "prompt" in record else None
    if prompt is None or (isinstance(prompt, str) and _whole_conversation(chosen) and _whole_conversation(rejected)):
        prompt, chosen, rejected = _without_common_prompt(source, chosen, rejected)
    prompt = _as_prompt(prompt, as_chat)
    pair = tuple(
        OfflineCompletion(
            content=_answering(source, name, _as_answer(content, as_chat), prompt),
            preference=value,
        )
        for name, content, value in (("chosen", chosen, 1.0), ("rejected", rejected, 0.0))
    )
    return Row(prompt=prompt, columns=record, completions=pair, source=source)


def _whole_conversation(content: Content) -> bool:
    return not isinstance(content, str) and content[0]["role"] != "assistant"


def _without_common_prompt(source: str, chosen: Content, rejected: Content) -> tuple[Content, Content, Content]:
    """Implicit prompts: the common leading messages, or the common beginning of two texts."""
    if type(chosen) is not type(rejected):
        raise DataError(f"{source}: 'chosen' is text and 'rejected' is messages (or the reverse); they must be alike.")
    length = 0
    for one, other in zip(chosen, rejected, strict=False):
        if one != other:
            break
        length += 1
    if isinstance(chosen, str):
        # A word that both answers begin with belongs to the answers, and so does the space before it, which
        # tokenizers put at the beginning of a word (TRL cuts there too).
        while length and not chosen[length - 1].isspace():
            length -= 1
        if length and chosen[length - 1] == " ":
            length -= 1
    if length == 0:
        raise DataError(f"{source}: 'chosen' and 'rejected' have no common beginning to be the prompt; add 'prompt'.")
    return chosen[:length], chosen[length:], rejected[length:]


def _content(source: str, column: str, value: Any) -> Content:
    """Text or messages, checked."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        what = "null" if value is None else "an empty list" if value == [] else type(value).__name__
        raise DataError(f"{source}: column {column!r} is {what}; allowed are text or a list of messages.")
    for message in value:
        if not isinstance(message, dict) or "role" not in message:
            raise DataError(f'{source}: column {column!r}: a message is {{"role": …, "content": …}}, not {message!r}.')
        if message["role"] not in ROLES:
            raise DataError(
                f"{source}: column {column!r}: unknown role {message['role']!r}; allowed are {', '.join(ROLES)}."
            )
        if not isinstance(message.get("content"), str | list) and not message.get("tool_calls"):
            raise DataError(f"{source}: column {column!r}: the {message['role']}'s message has no text in 'content'.")
    # A table gives every message every key, null where it has none; templates ask which keys are there.
    return [{key: part for key, part in message.items() if part is not None} for message in value]


def _answering(source: str, column: str, content: Content, prompt: Content) -> Content:
    """The content, checked to be an answer to the prompt."""
    if isinstance(content, str) != isinstance(prompt, str):
        raise DataError(
            f"{source}: 'prompt' is {_kind(prompt)} and {column!r} is {_kind(content)}; they must be alike."
        )
    if not content:
        raise DataError(f"{source}: column {column!r} is empty.")
    if not isinstance(content, str) and any(content[end]["role"] != "assistant" for end in (0, -1)):
        raise DataError(
            f"{source}: column {column!r} must begin and end with the assistant's message; it goes from "
            f"{content[0]['role']} to {content[-1]['role']}. What comes before belongs to 'prompt'."
        )
    return content


def _kind(content: Content) -> str:
    return "text" if isinstance(content, str) else "messages"


def _as_prompt(prompt: Content, as_chat: bool) -> Content:
    return [{"role": "user", "content": prompt}] if as_chat and isinstance(prompt, str) else prompt


def _as_answer(content: Content, as_chat: bool) -> Content:
    return [{"role": "assistant", "content": content}] if as_chat and isinstance(content, str) else content
