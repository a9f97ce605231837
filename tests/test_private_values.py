"""What strangers may see of a configuration."""

from __future__ import annotations

import os

import pytest

from pggrpo_cli.private_values import public, public_override, public_text


@pytest.mark.parametrize(("text", "shown"), [
    ("/home/alice/secret project/q.jsonl", "…/secret project/q.jsonl"),  # a blank ends a path: the rest is said to be text
    ("/home/alice/q.jsonl", "…/q.jsonl"),
    ("file:///home/alice/groups", "…/groups"),
    ("~/models/mine/", "…/mine"),
    ("~alice/models/mine", "…/mine"),
    ("../../alice/mine", "…/mine"),
    (r"C:\Users\alice\mine.jsonl", "…/mine.jsonl"),
    ("['/data/a/x.jsonl', '/data/b/y.jsonl']", "['…/x.jsonl', '…/y.jsonl']"),
    ("[/data/a/x.jsonl,/data/b/y.jsonl]", "[…/x.jsonl,…/y.jsonl]"),
    ("data/questions.jsonl", "data/questions.jsonl"),
    ("HuggingFaceTB/SmolLM2-135M-Instruct", "HuggingFaceTB/SmolLM2-135M-Instruct"),
    ("https://example.org/v1/models", "https://example.org/v1/models"),
    ("https://alice:pass@example.org/v1", "https://…@example.org/v1"),
    ("3/4 and 1/2", "3/4 and 1/2"),
    ("use hf_abcdefghijklmnopqrstuv please", "use … please"),
    ("sk-proj-abcdefghijklmnop", "…"),
    (" Answer with only the number.", " Answer with only the number."),
])  # fmt: skip
def test_text(text: str, shown: str) -> None:
    assert public_text(text) == shown


def test_the_home_folder_goes_wherever_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere/alice")
    assert os.path.expanduser("~") == "/somewhere/alice"
    assert "alice" not in public_text("x/somewhere/alice/y")


def test_keys_that_name_a_secret() -> None:
    values = {
        "api_key": "abc", "judge": {"token": "x", "headers": {"Authorization": "Bearer y"}, "key": ""},
        "max_new_tokens": 24, "api_key_env": "OPENAI_API_KEY", "keys": ["a"], "password": None, "passwords": {"token": ["z"]},
    }  # fmt: skip
    assert public(values) == {
        "api_key": "…", "judge": {"token": "…", "headers": {"Authorization": "…"}, "key": ""},
        "max_new_tokens": 24, "api_key_env": "OPENAI_API_KEY", "keys": ["a"], "password": None, "passwords": {"token": ["…"]},
    }  # fmt: skip


def test_overrides() -> None:
    assert public_override("data.path=/home/alice/q.jsonl") == "data.path=…/q.jsonl"
    assert public_override("+reward.judge.api_key=abc") == "+reward.judge.api_key=…"
    assert public_override("~reward.format") == "~reward.format"
    assert public_override("loss=grpo") == "loss=grpo"
