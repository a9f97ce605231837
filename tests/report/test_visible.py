"""Text that could hide or steer something."""

from __future__ import annotations

import pytest

from pggrpo_cli.report.visible import shortened, visible


@pytest.mark.parametrize(("text", "expected"), [
    ("plain text", "plain text"),
    ("\x1b[2J\x00\x7f\x9b", "␛[2J␀␡[U+009B]"),
    ("a\r\nb\rc\td\n", "a\nb␍c\td\n"),
    ("\u202eevil\u2066\u200b\ufeff", "[U+202E]evil[U+2066][U+200B][U+FEFF]"),
    ("\ud800", "[U+D800]"),
    ("\u2028\U000e0041", "[U+2028][U+E0041]"),
    ("日本語 مرحبا 👩\u200d🚀 می\u200cخواهم", "日本語 مرحبا 👩\u200d🚀 می\u200cخواهم"),
])  # fmt: skip
@pytest.mark.fault("T38")
def test_nothing_is_hidden(text: str, expected: str) -> None:
    assert visible(text) == expected


def test_long_text_keeps_both_ends() -> None:
    text = "".join(chr(97 + place % 26) for place in range(10_000))
    found = shortened(text, 3000)
    assert found.startswith(text[:2000])
    assert found.endswith(text[-1000:])
    assert "7,000 characters" in found
    assert shortened("short", 3000) == "short"
