"""TRL's data formats, and errors that name file, line and column."""

from __future__ import annotations

from typing import Any

import pytest

from pggrpo_cli.errors import DataError
from pggrpo_cli.rows import rows_from_records
from pggrpo_cli.types import Row


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def row(record: dict[str, Any], *, as_chat: bool = False, preference: bool = False, **columns: str) -> Row:
    (made,) = rows_from_records([("f.jsonl:7", record)], columns, as_chat=as_chat, need_preference=preference)
    return made


def contents(made: Row) -> list[Any]:
    return [(completion.content, completion.preference) for completion in made.completions]


def test_prompt_only() -> None:
    made = row({"prompt": "p", "answer": 4, "level": "easy"})
    assert (made.prompt, made.columns, made.completions) == ("p", {"answer": 4, "level": "easy"}, ())
    assert row({"prompt": [user("p")]}).prompt == [user("p")]
    assert row({"prompt": "p"}, as_chat=True).prompt == [user("p")]


def test_explicit_preferences() -> None:
    made = row({"prompt": "p", "chosen": "good", "rejected": "bad", "score": 3})
    assert contents(made) == [("good", 1.0), ("bad", 0.0)]
    assert made.columns == {"score": 3}
    made = row({"prompt": [user("p")], "chosen": [assistant("good")], "rejected": [assistant("bad")]})
    assert contents(made) == [([assistant("good")], 1.0), ([assistant("bad")], 0.0)]


def test_implicit_prompts_are_the_common_beginning() -> None:
    made = row({"chosen": "The sky is blue.", "rejected": "The sky is black."})
    assert made.prompt == "The sky is"
    assert contents(made) == [(" blue.", 1.0), (" black.", 0.0)]
    made = row({"chosen": "Q: sky?\nblue", "rejected": "Q: sky?\nblack"})
    assert (made.prompt, contents(made)) == ("Q: sky?\n", [("blue", 1.0), ("black", 0.0)])
    made = row({"chosen": [user("p"), assistant("a")], "rejected": [user("p"), assistant("b")]})
    assert made.prompt == [user("p")]
    assert contents(made) == [([assistant("a")], 1.0), ([assistant("b")], 0.0)]


def test_demonstrations() -> None:
    made = row({"messages": [user("p"), assistant("a")], "id": 1})
    assert (made.prompt, contents(made), made.columns) == ([user("p")], [([assistant("a")], None)], {"id": 1})
    assert contents(row({"prompt": "p", "completion": "c"})) == [("c", None)]
    assert contents(row({"prompt": "p", "completion": "c"}, as_chat=True)) == [([assistant("c")], None)]


def test_columns_are_mapped() -> None:
    made = row({"question": "q", "gold": "4"}, prompt="question", answer="gold")
    assert (made.prompt, made.columns) == ("q", {"answer": "4"})


def test_a_mapped_column_takes_the_place_of_the_one_that_has_its_name() -> None:
    made = row({"prompt": "old", "question": "q", "answer": 1, "gold": 2}, prompt="question", answer="gold")
    assert (made.prompt, made.columns) == ("q", {"answer": 2})
    made = row({"answer": 1, "prompt": "p"}, prompt="prompt", gold="answer")
    assert (made.prompt, made.columns) == ("p", {"gold": 1})


def test_columns_within_columns() -> None:
    """verl's rows."""
    record = {
        "prompt": [user("p")],
        "data_source": "gsm8k",
        "reward_model": {"style": "rule", "ground_truth": "4"},
        "extra_info": {"index": 1},
    }
    made = row(record, answer="reward_model.ground_truth")
    assert made.columns == {"answer": "4", **{name: record[name] for name in record if name != "prompt"}}
    assert row({"prompt": "p", "a.b": 1, "a": {"b": 2}}, x="a.b").columns["x"] == 1
    with pytest.raises(
        DataError,
        match=r"no column 'reward_model.truth', which data.columns.answer names; 'reward_model' has 'style', "
        r"'ground_truth'. Did you mean 'reward_model.ground_truth'\?",
    ):
        row(record, answer="reward_model.truth")


def test_a_text_prompt_beside_whole_conversations() -> None:
    made = row({"prompt": "p", "chosen": [user("p"), assistant("a")], "rejected": [user("p"), assistant("b")]})
    assert made.prompt == [user("p")]
    assert contents(made) == [([assistant("a")], 1.0), ([assistant("b")], 0.0)]


def test_keys_that_a_table_fills_with_null_are_no_keys() -> None:
    assert row({"prompt": [{**user("p"), "tool_calls": None}]}).prompt == [user("p")]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"promt": "p"}, r"no column 'prompt'; the columns are 'promt'. Did you mean 'promt'\?"),
        ({"prompt": 3}, "column 'prompt' is int"),
        ({"prompt": []}, "column 'prompt' is an empty list"),
        ({"prompt": None}, "column 'prompt' is null"),
        ({"messages": [assistant("a")]}, "no message before the assistant's"),
        (
            {"prompt": [user("p")], "chosen": [user("p"), assistant("a")], "rejected": [user("p"), assistant("b")]},
            "must begin and end with the assistant's message; it goes from user to assistant",
        ),
        ({"prompt": ["x"]}, "a message is"),
        ({"prompt": [{"role": "usr", "content": "x"}]}, "unknown role 'usr'"),
        ({"prompt": [{"role": "user", "content": None}]}, "has no text"),
        ({"prompt": "p", "chosen": "c"}, "no column 'rejected'"),
        ({"prompt": "p", "chosen": "c", "rejected": "c"}, "are the same"),
        ({"prompt": "p", "chosen": "c", "rejected": ""}, "column 'rejected' is empty"),
        ({"prompt": [user("p")], "chosen": "c", "rejected": "d"}, "must be alike"),
        ({"chosen": "abc", "rejected": "xyz"}, "no common beginning"),
        ({"chosen": "abc", "rejected": [assistant("x")]}, "must be alike"),
        ({"messages": [user("p")]}, "ends with the assistant's"),
    ],
)
@pytest.mark.fault("T21")
def test_errors_name_the_line_and_the_column(record: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        row(record)
    assert "f.jsonl:7" in str(caught.value)


@pytest.mark.fault("T21")
def test_a_mapped_column_that_is_missing() -> None:
    with pytest.raises(DataError, match=r"no column 'qestion', which data.columns.prompt names.*mean 'question'"):
        row({"question": "q"}, prompt="qestion")


@pytest.mark.fault("T21")
def test_a_name_of_ours_that_is_misspelt() -> None:
    with pytest.raises(DataError, match=r"`data\.columns\.promt`: did you mean data\.columns\.prompt\?"):
        row({"question": "1 + 1"}, promt="question")
    with pytest.raises(DataError) as refused:
        row({"question": "1 + 1"}, answer="question")
    assert "did you mean data.columns" not in str(refused.value)


def test_preferences_where_they_are_needed() -> None:
    with pytest.raises(DataError, match="no column 'chosen'"):
        row({"prompt": "p"}, preference=True)
