"""Prompts of the line and of files, told from overrides, with errors that name the line."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from pggrpo_cli.errors import PggrpoError, UsageError
from pggrpo_cli.generating.given_prompts import divided_words, places, refuse_rows, rows_of_file, rows_of_texts


def test_prompts_are_told_from_overrides() -> None:
    words = [
        *("Why is 3=3?", "seed=3", "y=2x", "sampler.temperature=0.7", "smapler.top_p=1", "-3 + 4 =", "a = b"),
        *("reward=[format]", "~reward.format", "+data@x=jsonl", "data.prompt_suffix= in one word", "C=O double bond"),
    ]
    prompts, overrides = divided_words(words)
    assert prompts == ["Why is 3=3?", "y=2x", "-3 + 4 =", "a = b", "C=O double bond"]
    assert overrides == [word for word in words if word not in prompts]


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("sampelr=x", "sampler"),
        ("temperature=0.7", "sampler.temperature or evaluation.temperature"),
        ("temprature=0.7", "sampler.temperature or evaluation.temperature"),
        ("max_tokens=9", "sampler.max_new_tokens or evaluation.max_new_tokens or data.max_prompt_tokens"),
        ("+lr=1", "optimizer.lr"),
        ("cliphigh=1", "loss.clip_high"),
    ],
)
def test_a_misspelt_key_is_no_prompt(word: str, meant: str) -> None:
    name = word.strip("+").partition("=")[0]
    with pytest.raises(UsageError) as refused:
        divided_words(["Why?", word])
    said = f"`{word}`: there is no key {name}. Did you mean {meant}? If it is a prompt, write it behind --."
    assert str(refused.value) == said
    assert divided_words([f"{word} in a sentence"]) == ([f"{word} in a sentence"], [])


def test_lines_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "q.txt"
    file.write_bytes("\ufeffone\r\n\n  \n  two é\n".encode())
    rows = rows_of_file(str(file))
    assert [(row.prompt, row.source) for row in rows] == [("one", f"{file}:1"), ("  two é", f"{file}:4")]


def test_lines_of_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a\nb\n")))
    assert [row.source for row in rows_of_file("-")] == ["stdin:1", "stdin:2"]


def test_records(tmp_path: Path) -> None:
    file = tmp_path / "q.jsonl"
    user, answer = '{"role": "user", "content": "3?"}', '{"role": "assistant", "content": "4"}'
    file.write_text(
        f'{{"prompt": "a", "answer": "b"}}\n{{"messages": [{user}], "k": 1}}\n{{"messages": [{user}, {answer}]}}\n'
    )
    plain, asked, answered = rows_of_file(str(file))
    assert (plain.prompt, plain.columns) == ("a", {"answer": "b"})
    assert (asked.prompt, asked.columns) == ([{"role": "user", "content": "3?"}], {"k": 1})
    assert asked.prompt == answered.prompt


@pytest.mark.parametrize(("name", "content", "said"), [
    ("q.jsonl", b'{"prompt": "a"}\n{"prompt": \n', "q.jsonl:2: not valid JSON"),
    ("q.jsonl", b'{"prompt": "a"}\n{"question": "b"}\n', "q.jsonl:2: there is no column 'prompt'"),
    ("q.jsonl", b'{"prompt": ""}\n', "q.jsonl:1: the prompt is empty"),
    ("q.jsonl", b'{"messages": []}\n', "q.jsonl:1: "),
    ("q.jsonl", b"[1]\n", "q.jsonl:1: a JSON object is needed"),
    ("q.txt", b"a\n\xff\n", "q.txt:2: not UTF-8 (byte 1 of the line)"),
    ("q.txt", b"\n \n", "q.txt holds no prompt"),
    ("q.jsonl", b"", "q.jsonl holds no prompt"),
])  # fmt: skip
def test_refused_files(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PggrpoError) as refused:
        rows_of_file(str(tmp_path / name))
    assert said in str(refused.value)


def test_an_empty_prompt_is_named() -> None:
    with pytest.raises(UsageError, match="prompt 2 is empty"):
        rows_of_texts(["a", " \n"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [("3", [3]), ("0:2", [0, 1]), ("3:", [3, 4]), (":2", [0, 1]), (":", [0, 1, 2, 3, 4]), ("4,0,4", [4, 0, 4])],
)
def test_rows(text: str, expected: list[int]) -> None:
    refuse_rows(text)
    assert places(text, 5, "rows") == expected
    with pytest.raises(UsageError):
        places(text, 0, "rows")


@pytest.mark.parametrize("text", ["", "a", "1-2", "-1", "1:2:3", "2:2", "5:3", "1,", "0x1"])
def test_rows_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="`--rows`"):
        refuse_rows(text)


def test_a_row_that_is_not_there() -> None:
    for text in ("5", "1,5", "5:", "5:9"):
        with pytest.raises(UsageError, match="there are 5 held-out rows, 0 to 4"):
            places(text, 5, "held-out rows")
