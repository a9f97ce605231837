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
    ("https://h/score?token=abcdef&x=1", "https://h/score?…"),
    ("https://h/score?x=1#access_token=abcdef", "https://h/score?…"),
    ("see https://h/a?b=c, or (https://h/a#part)", "see https://h/a?…, or (https://h/a#part)"),
    ("h/score?token=abcdef&b=1", "h/score?token=…&b=1"),
    ("X: Bearer abcdefgh", "X: Bearer …"),
    ("basic YWxpY2U6cGFzcw==", "basic …"),
    ("Basic instructions for a bearer of news", "Basic instructions for a bearer of news"),
    ("a JWT is eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc-def", "a JWT is …"),
    ('{"api_key": "a,b", "n": 1}', '{"api_key": …, "n": 1}'),
    ("{api_keys: [a, b], max_tokens: 5}", "{api_keys: …, max_tokens: 5}"),
    ("{password: 12345, use_token: true, eos_token: null}", "{password: …, use_token: true, eos_token: null}"),
    ("Write the key: 42. The token: none. a=b", "Write the key: 42. The token: none. a=b"),
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


def test_more_names_of_secrets() -> None:
    values = {
        "api_keys": ["abc", {"x": "def"}], "apiKey": "abc", "headers": {"X-Api-Key": "abc", "X": "Bearer abcdefgh"},
        "credentials": {"user": "alice", "n": 5, "on": True}, "client_secret": 12345, "max_tokens": 5, "stop_tokens": ["x"],
        "url": "https://h/score?token=abcdef", "monkey": "abc", "token": 3,
    }  # fmt: skip
    assert public(values) == {
        "api_keys": ["…", {"x": "…"}], "apiKey": "…", "headers": {"X-Api-Key": "…", "X": "Bearer …"},
        "credentials": {"user": "…", "n": "…", "on": True}, "client_secret": "…", "max_tokens": 5, "stop_tokens": ["x"],
        "url": "https://h/score?…", "monkey": "abc", "token": 3,
    }  # fmt: skip


def test_overrides() -> None:
    assert public_override("reward.http.url=https://h/score?token=abcdef") == "reward.http.url=https://h/score?…"
    assert public_override("+x.extra_body={api_key: abc, n: 1}") == "+x.extra_body={api_key: …, n: 1}"
    assert public_override("x.api_keys=[abc,def]") == "x.api_keys=…"
    assert public_override("x.credentials.value=abc") == "x.credentials.value=…"
    assert public_override("x.max_tokens=256") == "x.max_tokens=256"
    assert public_override("/home/alice/conf") == "…/conf"
    assert public_override("data.path=/home/alice/q.jsonl") == "data.path=…/q.jsonl"
    assert public_override("+reward.judge.api_key=abc") == "+reward.judge.api_key=…"
    assert public_override("~reward.format") == "~reward.format"
    assert public_override("loss=grpo") == "loss=grpo"
