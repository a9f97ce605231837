"""The word while nothing can be seen yet."""

from __future__ import annotations

import io
import sys

import pytest

from pggrpo_cli.saying import saying


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_it_is_cleared_before_an_error_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    with pytest.raises(KeyError), saying("loading …"):
        raise KeyError("x")
    assert shown.getvalue() == "loading …\r" + 9 * " " + "\r"
