"""Tables, docstrings and comments as Markdown, for generate.py."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Mapping
from typing import Any

SHOWN = 60
"""Characters of a value; a longer one is in its file."""


def key_table(values: Any, place: str, allowed: Mapping[str, str], comments: Mapping[str, str]) -> list[str]:
    """`comments`: {key below `place`: words}. Mappings that hold keys of their own are shown key by key."""
    rows: list[str] = []
    for key, value in flat(values):
        full = ".".join(part for part in (place, key) if part)
        may_be, words = allowed.get(key, ""), comments.get(key, "")
        if words.startswith(choices := may_be.removesuffix(" or null")) and choices:
            words = words.removeprefix(choices).lstrip(":, ")
        rows.append(f"| `{full}` | {shown_value(value)} | {cell(may_be)} | {cell(words)} |")
    return ["| key | is | may be | |", "|---|---|---|---|", *rows] if rows else []


def flat(values: Mapping[Any, Any]) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in values.items():
        if isinstance(value, Mapping) and value and "_target_" not in value:
            found += [(f"{key}.{inner}", one) for inner, one in flat(value)]
        else:
            found.append((str(key), value))
    return found


def shown_value(value: Any) -> str:
    if value == "???":
        return "*yours to give*"
    if isinstance(value, str) and ("\n" in value or len(value) > SHOWN):
        return "*a longer text*"
    if isinstance(value, str):
        return code(value) if value else '`""`'
    return code(flow(value))


def flow(value: Any) -> str:
    """YAML on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {flow(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(flow(one) for one in value) + "]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def prose(text: str) -> str:
    """A docstring or comment as Markdown: what is indented becomes a block, everything else keeps its signs."""
    parts = []
    for block in re.split(r"\n{2,}", inspect.cleandoc(text)):
        lines = block.splitlines()
        if lines and all(line.startswith("    ") for line in lines):
            parts.append("```text\n" + textwrap.dedent(block) + "\n```")
        elif any(line.startswith(("    ", "  ")) for line in lines):
            parts.append("```text\n" + block + "\n```")
        else:
            parts.append(escaped(" ".join(lines)))
    return "\n\n".join(parts)


def escaped(text: str) -> str:
    """Markdown that shows `text`, in which only backticks mean something."""
    pieces = re.split(r"(`[^`]*`)", text)
    return "".join(
        one if one.startswith("`") else re.sub(r"(?<!\w)_|_(?!\w)|[*<\\]|\](?=\()", r"\\\g<0>", one) for one in pieces
    )


def cell(text: str) -> str:
    return escaped(text).replace("|", "\\|")


def code(text: str) -> str:
    """A span of code in a cell; backticks and bars within are kept apart."""
    fence = "``" if "`" in text else "`"
    pad = " " if fence != "`" else ""
    return f"{fence}{pad}{text}{pad}{fence}".replace("|", "\\|")


def anchor(heading: str) -> str:
    """Of a heading, as GitHub and the site make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def page(title: str, source: str, lines: list[str]) -> str:
    return (
        "\n".join([f"# {title}", "", f"<!-- Written by `make docs` from {source}: change it there. -->", "", *lines])
        + "\n"
    )


def sentence(comment: str) -> str:
    """A comment with a capital and a full stop; a Greek letter or a key stays what it is."""
    first = comment.partition(" ")[0]
    plain = first.isascii() and "=" not in first
    return f"{comment[:1].upper() if plain else comment[:1]}{comment[1:].rstrip('.')}."


def linked(text: str, up: str) -> str:
    """A page in which docs/NAME.md, outside of code and links, leads there; `up` goes from the page to docs/."""
    pieces = re.split(r"(```.*?\n```|`[^`\n]*`|<!--.*?-->|\]\([^)]*\))", text, flags=re.DOTALL)
    page_name = re.compile(r"\bdocs/(\w+\.md)")
    return "".join(one if place % 2 else page_name.sub(rf"[\1]({up}\1)", one) for place, one in enumerate(pieces))
