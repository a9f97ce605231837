"""A user's own function, with TRL's signature."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pggrpo_cli.errors import ConfigError, UserCodeError
from pggrpo_cli.reward.python import Python
from pggrpo_cli.types import Sample

SOURCE = """
def plain(prompts, completions, answer, **kwargs):
    assert sorted(kwargs) == ["completion_ids", "level"]
    return [float(a == c) for a, c in zip(answer, completions)]

def picky(completions):
    return [len(c) for c in completions]

def chat(prompts, completions, **kwargs):
    return [float(p[-1]["content"] in c[0]["content"]) for p, c in zip(prompts, completions)]

def wants(completions, solution):
    return []
"""


def sample(completion: str, prompt: Any = "p", **columns: Any) -> Sample:
    return Sample(prompt=prompt, completion=completion, completion_ids=[0], finish_reason="stop", columns=columns)


@pytest.fixture
def path(tmp_path: Path) -> str:
    file = tmp_path / "mine.py"
    file.write_text(SOURCE)
    return str(file)


def test_columns_come_by_name(path: str) -> None:
    samples = [sample("4", answer="4", level=1), sample("5", answer="4", level=2)]
    assert Python(path=path, name="plain").score(samples) == [1.0, 0.0]
    assert Python(path=path, name="picky").score(samples) == [1, 1]


def test_conversational_rows_get_messages(path: str) -> None:
    prompt = [{"role": "user", "content": "red"}]
    assert Python(path=path, name="chat").score([sample("a red hat", prompt), sample("a hat", prompt)]) == [1.0, 0.0]


def test_what_is_missing_is_named(path: str, tmp_path: Path) -> None:
    with pytest.raises(UserCodeError, match=r"asks for 'solution', which is no column"):
        Python(path=path, name="wants").score([sample("x", answer="4")])
    with pytest.raises(ConfigError, match=r"no function 'plane'; it has plain, picky, chat, wants"):
        Python(path=path, name="plane").score([sample("x")])
    with pytest.raises(ConfigError, match=r"`reward.python.path`: there is no file"):
        Python(path=str(tmp_path / "none.py"), name="x").score([sample("x")])
    broken = tmp_path / "broken.py"
    broken.write_text("import nothing_of_this_name")
    with pytest.raises(UserCodeError, match="raised ModuleNotFoundError when read"):
        Python(path=str(broken), name="x").score([sample("x")])


def test_a_file_that_is_a_module_like_any_other(tmp_path: Path) -> None:
    file = tmp_path / "classes.py"
    file.write_text(
        "from __future__ import annotations\nfrom dataclasses import InitVar, dataclass\n@dataclass\nclass A:\n"
        "    x: InitVar[int]\ndef one(completions):\n    return [1.0 for _ in completions]\n"
    )
    assert Python(path=str(file), name="one").score([sample("a")]) == [1.0]
    file = tmp_path / "leaves.py"
    file.write_text("import sys\nsys.exit(3)\n")
    with pytest.raises(UserCodeError, match=r"leaves.py raised SystemExit"):
        Python(path=str(file), name="one").score([sample("a")])
