"""What only shows once torch, the data or the model is there: the right exit code, one paragraph, no folder left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.command_line import run_all

SUMS = [{"prompt": f"{a} + 1 = ", "answer": str(a + 1)} for a in range(6)]
FILES = {
    "sums.jsonl": "".join(json.dumps(row) + "\n" for row in SUMS),
    "empty.jsonl": "",
    "no_prompt.jsonl": '{"question": "1 + 1", "answer": "2"}\n',
    "no_answer.jsonl": '{"prompt": "1 + 1"}\n',
    "long.jsonl": '{"prompt": "a"}\n{"prompt": "' + "9" * 9000 + '"}\n',
    "only_long.jsonl": '{"prompt": "' + "9" * 9000 + '", "answer": "1"}\n',
    "mine.py": "def raises(completions):\n    return [1 / 0]\n"
    "def short(completions):\n    return [1.0]\n"
    "def words(completions):\n    return ['good' for _ in completions]\n"
    "def wants(completions, solution):\n    return [1.0 for _ in completions]\n"
    "class Raises:\n    def __init__(self, **keys):\n        raise RuntimeError('never')\n"
    "class Plain:\n    pass\n"
    "class NoData:\n    def __init__(self, **keys):\n        pass\n    def load(self, seed):\n        return []\n",
    "pickled/config.json": '{"model_type": "llama"}',
    "pickled/pytorch_model.bin": "x",
    "no_weights/config.json": '{"model_type": "llama"}',
}
TINY = ["train", "debug=fast", "logger=[]"]


def jsonl(name: str, *more: str) -> list[str]:
    return [*TINY, "data=jsonl", f"data.path={name}", "data.eval_size=0", *more]


def mine(name: str) -> list[str]:
    return jsonl("sums.jsonl", "reward=python", "reward.python.path=mine.py", f"reward.python.name={name}")


CASES: dict[str, tuple[list[str], list[str]]] = {
    "missing model folder": (
        [*TINY, "model=hf", "model.path=./nowhere"],
        ["`model.path`", "there is no folder nowhere"],
    ),
    "folder without weights": ([*TINY, "model=hf", "model.path=./no_weights"], ["`model.path`", "safetensors"]),
    "pickled weights": ([*TINY, "model=hf", "model.path=./pickled"], ["`model.path`", "pickle", "save_pretrained"]),
    "missing file": (jsonl("none.jsonl"), ["`data.path`: none.jsonl does not exist"]),
    "missing reward model": (
        [*TINY, "reward=reward_model", "reward.reward_model.path=./nowhere"],
        ["`reward.reward_model.path`: there is no folder nowhere"],
    ),
    "empty data set": (jsonl("empty.jsonl"), ["`data.path`: holds no rows"]),
    "missing column": (jsonl("no_prompt.jsonl"), ["no_prompt.jsonl:1", "no column 'prompt'", "data.columns.prompt="]),
    "missing answer": (jsonl("no_answer.jsonl"), ["`reward.exact_answer.answer_column`", "no column 'answer'"]),
    "overlong prompt": (
        jsonl("long.jsonl", "data.overlong=error", "reward=length"),
        ["long.jsonl:2: the prompt has 9000 tokens", "data.overlong=drop"],
    ),
    "all prompts overlong": (jsonl("only_long.jsonl"), ["all 1 rows were dropped", "data.overlong=truncate_left"]),
    "nothing left to train on": (
        [*TINY, "data=jsonl", "data.path=sums.jsonl", "data.eval_size=6"],
        ["`data.eval_size`: 6 of 6", "lower it"],
    ),
    "raising reward": (mine("raises"), ["`reward.python`: raised ZeroDivisionError", "return [1 / 0]"]),
    "wrong number of scores": (mine("short"), ["`reward.python`: returned 1 scores for"]),
    "scores that are words": (mine("words"), ["`reward.python`: returned str 'good'; a finite number or None"]),
    "reward that wants a column": (mine("wants"), ["'solution'", "no column of the data"]),
    "no such function": (mine("other"), ["`reward.python.name`", "no function 'other'; it has raises, short"]),
    "unknown task": (
        [*TINY, "data=reasoning_gym", "data.task=chain_sums"],
        ["`data.task`", "'chain_sums'", "Did you mean chain_sum"],
    ),
    "unknown device": ([*TINY, "device=gpu"], ["`device`: 'gpu' is no device"]),
    "one completion a group": ([*TINY, "sampler.group_size=1"], ["`sampler.group_size`", "2 or more"]),
    "broken chat template": ([*TINY, "model.chat_template=./none.jinja"], ["`model.chat_template`", "none.jinja"]),
    "no checkpoint": ([*TINY, "resume.from=./no_weights"], ["holds no complete checkpoint"]),
    "learning rate that is text": ([*TINY, "optimizer.lr=abc"], ["`optimizer.lr`: 'abc' is not a number"]),
    "negative learning rate": ([*TINY, "optimizer.lr=-1"], ["`optimizer.lr`: -1 is not ≥ 0"]),
    "betas of another length": (
        [*TINY, "optimizer.betas=[0.9]"],
        ["`optimizer`: torch.optim.AdamW refuses its values"],
    ),
    "heads that do not divide": ([*TINY, "model.heads=5"], ["`model.heads`: 5 does not divide model.hidden_size"]),
    "infinite weight": ([*TINY, "reward.exact_answer.weight=1e400"], ["weight`: inf is not a finite number"]),
    "beta that is no number": ([*TINY, "loss.beta=nan"], ["`loss.beta`: nan is not a finite number"]),
    "no room for a prompt": ([*TINY, "sampler.max_new_tokens=600"], ["`sampler.max_new_tokens`: 600 leaves no room"]),
    "no room in evaluation": (
        [*TINY, "evaluation.max_new_tokens=600"],
        ["`evaluation.max_new_tokens`: 600 leaves no room"],
    ),
    "reference on no device": ([*TINY, "reference.device=foo"], ["`reference.device`: 'foo' is no device"]),
    "raising constructor": (
        [*TINY, "loss._target_=mine.Raises", "~loss.beta"],
        ["`loss`: mine.Raises raised RuntimeError: never", "raise RuntimeError"],
    ),
    "reward without score": ([*TINY, "+reward.x._target_=mine.Plain", "+reward.x.weight=1"], ["no method score"]),
    "data of another kind": ([*TINY, "data._target_=mine.NoData"], ["load returned a list"]),
}


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, tuple[int, str, str, list[str]]], Path]:
    folder = tmp_path_factory.mktemp("bad_input")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return dict(zip(CASES, run_all([line for line, _ in CASES.values()], folder), strict=True)), folder


@pytest.mark.parametrize("case", CASES)
@pytest.mark.fault("T19", "T20", "T21", "T26", "T27")
def test_refused(case: str, refusals: tuple[dict[str, tuple[int, str, str, list[str]]], Path]) -> None:
    code, _, err, _ = refusals[0][case]
    assert code == (4 if case == "no checkpoint" else 2), err
    for words in CASES[case][1]:
        assert words in err
    assert ("Traceback" in err) == (case in ("raising reward", "raising constructor"))


def test_nothing_is_left_behind(refusals: tuple[dict[str, tuple[int, str, str, list[str]]], Path]) -> None:
    assert not (refusals[1] / "outputs").exists()
