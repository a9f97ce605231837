"""Comments of configuration files, as wide as a reader's terminal."""

from __future__ import annotations

import pytest

from pggrpo_cli.commented_config import _group
from pggrpo_cli.conf_files import commented, within

TEXT = "a:\n  key: 1\n  of_a_very_long_name_beside_which_little_is_left: some text\n  words: 'x # y'\n"
COMMENTS = {"a.key": "what the key does " * 4, "a.of_a_very_long_name_beside_which_little_is_left": "short words " * 4}


@pytest.mark.parametrize("width", [30, 40, 60, 80, 100])
def test_comments_stay_within_the_width_and_lose_no_word(width: int) -> None:
    shown = within(commented(TEXT, COMMENTS), width)
    bare = set(TEXT.splitlines())
    assert all(len(line) <= width or line in bare for line in shown.splitlines())
    assert bare <= {line.partition("  # ")[0].rstrip() for line in shown.splitlines()}
    said = " ".join(line.partition("# ")[2] for line in shown.splitlines() if line.strip() not in {"words: 'x # y'"})
    assert said.split() == [*("what the key does " * 4).split(), *("short words " * 4).split()]


def test_what_fits_is_left_alone() -> None:
    text = commented(TEXT, {"a.key": "short"})
    assert within(text, 80) == text


def test_options_of_a_group_stand_below_it() -> None:
    shown = _group("loss", ["pg_grpo", "dapo", "dr_grpo", "cispo"], 30).splitlines()
    assert shown == ["loss: cispo, dapo, dr_grpo,", "    pg_grpo"]
