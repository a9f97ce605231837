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
    assert sorted(kwargs) == ["completion_ids", "level", "log_extra", "log_metric", "trainer_state"]
    return [float(a == c) for a, c in zip(answer, completions)]

def picky(completions):
    return [len(c) for c in completions]

def chat(prompts, completions, **kwargs):
    return [float(p[-1]["content"] in c[0]["content"]) for p, c in zip(prompts, completions)]

def wants(completions, solution):
    return []
"""


def scores(path: str | Path, name: str, *samples: Sample) -> list[float | None]:
    return list(Python(path=str(path), name=name).score(samples).scores)


def sample(completion: str, prompt: Any = "p", **columns: Any) -> Sample:
    return Sample(prompt=prompt, completion=completion, completion_ids=[0], finish_reason="stop", columns=columns)


@pytest.fixture
def path(tmp_path: Path) -> str:
    file = tmp_path / "mine.py"
    file.write_text(SOURCE)
    return str(file)


def test_columns_come_by_name(path: str) -> None:
    samples = [sample("4", answer="4", level=1), sample("5", answer="4", level=2)]
    assert scores(path, "plain", *samples) == [1.0, 0.0]
    assert scores(path, "picky", *samples) == [1, 1]


def test_conversational_rows_get_messages(path: str) -> None:
    prompt = [{"role": "user", "content": "red"}]
    assert scores(path, "chat", sample("a red hat", prompt), sample("a hat", prompt)) == [1.0, 0.0]


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
    assert scores(file, "one", sample("a")) == [1.0]
    file = tmp_path / "leaves.py"
    file.write_text("import sys\nsys.exit(3)\n")
    with pytest.raises(UserCodeError, match=r"leaves.py raised SystemExit"):
        Python(path=str(file), name="one").score([sample("a")])


OTHERS = """
import asyncio

def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    right = solution_str == ground_truth
    return {"score": float(right), "format": 0.5, "from": f"{data_source}{extra_info['index']}"}

def verl_number(solution_str, ground_truth, **kwargs):
    return float(solution_str == ground_truth)

def one(completion, prompt, answer, tolerance=0):
    return None if not completion else float(abs(float(completion) - float(answer)) <= tolerance)

async def waits(completion):
    await asyncio.sleep(0)
    return len(completion)

def wrapped(completion):
    return waits(completion) if completion else None

async def trl_async(completions, **kwargs):
    await asyncio.sleep(0)
    return [len(text) for text in completions]

def logs(prompts, completions, trainer_state, log_metric, log_extra, **kwargs):
    log_metric("seen", len(completions))
    log_extra("size", [len(text) for text in completions])
    return [float(trainer_state.global_step)] * len(completions)

def anything(**kwargs):
    return [float("completions" in kwargs)]

def unclear(text, target): ...
"""


@pytest.fixture
def others(tmp_path: Path) -> Path:
    file = tmp_path / "others.py"
    file.write_text(OTHERS)
    return file


def test_as_verl_calls_it(others: Path) -> None:
    rows = {
        "nested": {"data_source": "maths", "reward_model": {"ground_truth": "4"}, "extra_info": {"index": 7}},
        "flat": {"ground_truth": "4", "extra_info": {"index": 8}},
        "answer": {"answer": "4", "extra_info": {"index": 9}},
    }
    samples = [sample("4" if name != "flat" else "5", **columns) for name, columns in rows.items()]
    scored = Python(path=str(others), name="compute_score").score(samples)
    assert list(scored.scores) == [1.0, 0.0, 1.0]
    assert scored.columns == {"format": [0.5] * 3, "from": ["maths7", "8", "9"]}
    assert scores(others, "verl_number", *samples) == [1.0, 0.0, 1.0]


def test_one_completion_at_a_time(others: Path) -> None:
    samples = [sample("4", answer="4"), sample("", answer="4"), sample("5", answer="4")]
    assert scores(others, "one", *samples) == [1.0, None, 0.0]
    assert scores(others, "waits", sample("ab"), sample("")) == [2, 0]
    assert scores(others, "wrapped", sample("ab"), sample("")) == [2, None]
    with pytest.raises(UserCodeError, match=r"one in .* asks for 'answer', which is no column"):
        scores(others, "one", sample("4"))


def test_the_rest_of_what_trl_passes(others: Path) -> None:
    assert scores(others, "trl_async", sample("ab"), sample("")) == [2, 0]
    at_step = Sample(prompt="p", completion="abc", completion_ids=[0], finish_reason="stop", columns={}, step=5)
    scored = Python(path=str(others), name="logs").score([at_step, at_step])
    assert list(scored.scores) == [4.0, 4.0]
    assert scored.metrics == {"seen": 2.0}
    assert scored.columns == {"size": [3, 3]}
    assert scores(others, "anything", sample("x")) == [1.0]


@pytest.mark.parametrize(
    ("name", "words"), [("compute_score", "verl does"), ("one", "a plain function"), ("logs", "TRL does")]
)
def test_it_says_how_it_is_called(others: Path, name: str, words: str) -> None:
    said = Python(path=str(others), name=name).describe()
    assert said.startswith(f"{name}(")
    assert f"is called as {words}" in said


def test_a_signature_that_tells_nothing(others: Path) -> None:
    with pytest.raises(UserCodeError, match=r"the parameters of unclear\(text, target\) do not tell how it is called"):
        scores(others, "unclear", sample("x"))
