"""docs/troubleshooting.md quotes what the program prints: every text must stand in the code, so that it cannot go stale."""

from __future__ import annotations

import ast
import re
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
QUOTES = re.findall(r"(?m)^```text\n(.+)\n```$", PAGE)
DIFFERENT = "…"
"""What stands for a value, in the page and in `literals`."""


@lru_cache
def literals() -> tuple[str, ...]:
    """Every text in the source, with DIFFERENT in place of what an f-string fills in."""
    found = []
    for file in (ROOT / "pggrpo_cli").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (str(one.value) if isinstance(one, ast.Constant) else DIFFERENT for one in node.values)
                found.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return tuple(found)


def stands_in(quote: str, literal: str) -> bool:
    """Whether the pieces between … come in their order in one text of the code, and begin where it begins."""
    place = 0
    for piece in (one.strip() for one in quote.removeprefix("warning: ").split(DIFFERENT)):
        place = literal.find(piece, place)
        if place < 0:
            return False
        place += len(piece)
    return True


def test_a_quote_is_found_only_where_all_of_it_stands_in_its_order() -> None:
    assert stands_in("`…`: there is no file …", "`…`: there is no file … (looked in …).")
    assert not stands_in("`…`: there is no file …, none", "`…`: there is no file …")
    assert not stands_in("second … first", "first … second")


def test_the_page_quotes_what_a_user_may_meet() -> None:
    assert len(QUOTES) >= 35
    assert PAGE.count("```text") == len(QUOTES), "a quote is one line"
    assert len(set(QUOTES)) == len(QUOTES)


@pytest.mark.parametrize("quote", QUOTES)
def test_every_quoted_text_stands_in_the_code(quote: str) -> None:
    assert any(stands_in(quote, literal) for literal in literals()), "the code says it otherwise by now: mend the page"
