"""pggrpo reward test: rewards on completions of every origin, without a model."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from pggrpo_cli import cli
from pggrpo_cli import run_directory as runs
from pggrpo_cli.advantage.group_mean import GroupMean
from pggrpo_cli.check import checked
from pggrpo_cli.composing import compose
from pggrpo_cli.config import as_dict
from pggrpo_cli.prompts import format_of, render_rows
from pggrpo_cli.recorder import Recorder
from pggrpo_cli.rollouts import score_groups
from pggrpo_cli.row_loading import load_rows
from pggrpo_cli.scoring.scorer import open_scorer
from pggrpo_cli.types import RewardContext, Rollout, RolloutGroup
from tests.command_line import environment, run, run_all
from tests.conftest import tiny_policy

MINE = """
def right(completions, answer, **columns):
    return [float(a == c) for a, c in zip(answer, completions)]

def shouts(completion, prompt):
    print("seen", completion)
    return float(completion.isupper()) if completion else None

def picky(completion):
    return 1 / (completion != "bad")

def says(completions, log_metric, log_extra, **columns):
    log_metric("size", sum(map(len, completions)))
    log_extra("length", [len(c) for c in completions])
    return [0.0 for c in completions]

def knows(prompts, completions, completion_ids, level, **columns):
    return [float(len(ids) + level_) for ids, level_ in zip(completion_ids, level)]

def prompts(prompts, completions, **columns):
    return [float(p[-1]["content"].endswith("!")) for p in prompts]
"""
SUMS = [{"prompt": f"{a} + 1 = ", "answer": str(a + 1), "level": a} for a in range(6)]
PAIRS = [{"prompt": "2 + 2 = ", "chosen": "4", "rejected": "five"}]


def lines(records: list[Any]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


FILES = {
    "mine.py": MINE,
    "sums.jsonl": lines(SUMS),
    "pairs.jsonl": lines(PAIRS),
    "some.jsonl": lines(
        [
            {"completion": "1", "row": 0},
            {"completion": "2", "row": 1, "level": 30, "completion_ids": [7, 7, 7]},
            {"completion": [{"role": "assistant", "content": "9"}], "prompt": "8 + 1 =", "answer": "9", "level": 0},
            {"completion": "", "prompt": "8 + 1 =", "answer": "9", "level": 1},
            {"completion": "1"},
        ]
    ),
    "broken.jsonl": '{"completion": "1"}\n{"completion": \n',
    "nameless.jsonl": '{"completion": "1"}\n{"text": "2"}\n',
    "far.jsonl": '{"completion": "1", "row": 99}\n',
    "odd.jsonl": '{"completion": "1", "row": "first"}\n',
    "number.jsonl": '{"completion": 4}\n',
    "nothing.jsonl": "\n",
    "markup.jsonl": lines([{"completion": "[/INST] [red]\u001b[31mx", "row": 0}]),
}
DATA = ["data=jsonl", "data.path=sums.jsonl", "data.eval_size=0"]


def mine(name: str, *more: str) -> list[str]:
    return ["reward=python", "reward.python.path=mine.py", f"reward.python.name={name}", *more]


def command(*words: str) -> list[str]:
    return ["reward", "test", *DATA, *words]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reward")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys, "path", list(sys.path))
    return folder


def objects(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> list[dict[str, Any]]:
    assert cli.main(command(*words, "--json")) == code
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def table(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert cli.main(command(*words)) == code
    return capsys.readouterr().out


@pytest.mark.usefixtures("here")
def test_completions_given_here(capsys: pytest.CaptureFixture[str]) -> None:
    found = objects(capsys, "--completion", "4", "--completion", "The answer is 3", "--row", "2")
    assert [one["reward"] for one in found] == [0.0, 1.0]
    assert found[1]["row"] == "2"
    assert found[1]["prompt"] == "2 + 1 = "
    assert found[1]["reward_terms"] == {"exact_answer": 1.0}
    assert {one["group"] for one in found} == {0}


@pytest.mark.usefixtures("here")
def test_completions_of_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    found = objects(capsys, *mine("knows"), "+reward.right._target_=pggrpo_cli.reward.python.Python",
                    "+reward.right.path=mine.py", "+reward.right.name=right", "++reward.right.isolated=true",
                    "--completions", "some.jsonl", "--row", "3")  # fmt: skip
    assert [one["row"] for one in found] == ["0", "1", "line 3", "line 4", "3"]
    assert [one["line"] for one in found][2] == "some.jsonl:3"
    assert [one["reward_terms"]["right"] for one in found] == [1.0, 1.0, 1.0, 0.0, 0.0]
    # bytes of the completion, or the file's own token ids, plus the level: the row's, or the file's own
    assert [one["reward_terms"]["python"] for one in found] == [1.0, 33.0, 1.0, 1.0, 4.0]
    assert [one["group"] for one in found] == [0, 1, 2, 2, 3]
    assert len(objects(capsys, "--completions", "some.jsonl", "--rows", "2")) == 2


@pytest.mark.usefixtures("here")
def test_without_any_the_data_set_helps_out(capsys: pytest.CaptureFixture[str]) -> None:
    out = table(capsys, "--rows", "2")
    assert "made-up completions: nothing, 0, and the row's answer, of 2 rows" in out
    assert "(nothing)" in out
    assert "exact_answer: mean 0.3333" in out
    pair = ["reward", "test", "data=preference_jsonl", "data.path=pairs.jsonl", "--json"]
    assert cli.main(pair) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["completion"], one["reward"]) for one in found] == [("4", 1.0), ("five", 0.0)]


@pytest.mark.usefixtures("here")
def test_what_the_table_says(capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        *mine("shouts", "reward.python.weight=0.5"),
        "--completion",
        "YES",
        "--completion",
        "no",
        "--completion",
        "",
    ]
    out = table(capsys, *words)
    assert "python ×0.5" in out
    row = next(line for line in out.splitlines() if "YES" in line and line.startswith("0"))
    assert row.split() == ["0", "YES", "1", "→", "0.5", "0.5"]
    assert next(line for line in out.splitlines() if "(nothing)" in line).split()[-2:] == ["–", "–"]
    assert "python: mean 0.5, does not apply to 1 of 3, " in out
    assert "ms a score" in out
    assert "reward: mean 0.25, from 0 to 0.5; 1 have none" in out
    assert "shouts(completion, prompt) in mine.py is called as a plain function" in out
    assert "seen YES" in out


@pytest.mark.usefixtures("here")
def test_what_a_reward_logs(capsys: pytest.CaptureFixture[str]) -> None:
    words = [*mine("says"), "--completion", "abc", "--completion", "d"]
    assert "logged: size 4" in table(capsys, *words)
    assert [one["extra"] for one in objects(capsys, *words)] == [{"python.length": 3}, {"python.length": 1}]


@pytest.mark.usefixtures("here")
def test_a_failure_hides_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    words = [*mine("picky", "reward.python.batch_size=1"), "--completion", "good", "--completion", "bad"]
    assert cli.main(command(*words)) == 2
    out, err = capsys.readouterr()
    assert next(line for line in out.splitlines() if " good " in line).split()[-2:] == ["1", "1"]
    assert next(line for line in out.splitlines() if " bad " in line).split()[-2:] == ["error", "–"]
    assert "reward.python: raised ZeroDivisionError: " in out
    assert 'return 1 / (completion != "bad")' in out
    assert "1 of 2 could not be scored" in out
    assert "`reward.python`: could not score 1 of 2 completions" in err
    assert "reward.python.on_error=skip" in err
    found = objects(capsys, *words, code=2)
    assert [one["reward"] for one in found] == [1.0, None]
    assert "ZeroDivisionError" in found[1]["errors"]["python"]


@pytest.mark.usefixtures("here")
def test_what_a_failure_is_worth(capsys: pytest.CaptureFixture[str]) -> None:
    words = [*mine("picky", "reward.python.batch_size=1", "reward.python.on_error=-1"), "--completion", "bad"]
    assert [one["reward"] for one in objects(capsys, *words, "--completion", "good")] == [-1.0, 1.0]
    assert cli.main(command(*words)) == 2
    out, err = capsys.readouterr()
    assert "error → -1" in out
    assert "could not score 1 of 1 completions, which ends a training: scoring.max_error_share is 0.5" in err


@pytest.mark.usefixtures("here")
def test_advantages(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--completion", "1", "--completion", "1", "--completion", "2", "--completion", "3", "--advantages"]
    found = objects(capsys, *words)
    assert [one["advantage"] for one in found] == [0.5, 0.5, -0.5, -0.5]
    found = objects(capsys, *words, "advantage=leave_one_out")
    assert [one["advantage"] for one in found] == pytest.approx([2 / 3, 2 / 3, -2 / 3, -2 / 3])
    assert "1 groups; those in which all rewards are equal teach nothing: 0" in table(capsys, *words)


@pytest.mark.usefixtures("here")
@pytest.mark.fault("T34")
def test_nothing_of_a_model_is_markup(capsys: pytest.CaptureFixture[str]) -> None:
    out = table(capsys, "--completions", "markup.jsonl")
    assert "[/INST] [red]x" in out
    assert "\x1b" not in out


@pytest.mark.usefixtures("here")
def test_a_narrow_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    out = table(capsys, "reward=[exact_answer,format,length]", "--completion", "1" * 200)
    assert all(len(line) <= 40 for line in out.splitlines())
    assert "length" in out


REFUSED: dict[str, tuple[list[str], list[str]]] = {
    "another word": (["reward", "tset"], ["`tset`", "Did you mean test?"]),
    "unknown option": (
        command("--completion", "1", "--colour"),
        ["`--colour`", "no such option", "See pggrpo reward --help"],
    ),
    "misspelt option": (command("--completons", "x.jsonl"), ["`--completons`", "Did you mean --completions"]),
    "misspelt key": (command("reward.exact_answer.wieght=2"), ["`reward.exact_answer.wieght`"]),
    "wrong value": (command("reward.exact_answer.weight=x"), ["`reward.exact_answer.weight`: 'x' is not a number"]),
    "bare word": (command("foo"), ["`foo`", "key=value"]),
    "missing file": (command("--completions", "none.jsonl"), ["`--completions`: none.jsonl does not exist"]),
    "bad line": (command("--completions", "broken.jsonl"), ["broken.jsonl:2: not valid JSON"]),
    "missing column": (
        command("--completions", "nameless.jsonl"),
        ["nameless.jsonl:2", "no column 'completion'", "'text'"],
    ),
    "no such row in the file": (
        command("--completions", "far.jsonl"),
        ["far.jsonl:1: there is no row 99; the data has 6"],
    ),
    "row that is text": (command("--completions", "odd.jsonl"), ["odd.jsonl:1: column 'row' is 'first'"]),
    "completion that is a number": (
        command("--completions", "number.jsonl"),
        ["number.jsonl:1", "'completion' is int"],
    ),
    "empty file": (command("--completions", "nothing.jsonl"), ["nothing.jsonl holds no completions"]),
    "no such row": (command("--completion", "1", "--row", "6"), ["`--row`: there is no row 6; the data has 6"]),
    "negative row": (command("--row", "-1"), ["--row: -1 is no row"]),
    "two origins": (command("--completion", "1", "--completions", "some.jsonl"), ["not from both"]),
    "missing data file": (
        ["reward", "test", "data=jsonl", "data.path=no.jsonl"],
        ["`data.path`: no.jsonl does not exist"],
    ),
    "no such function": (command(*mine("other")), ["`reward.python.name`", "no function 'other'"]),
    "wants a column": (
        ["reward", "test", "data=preference_jsonl", "data.path=pairs.jsonl", *mine("knows")],
        ["asks for 'level', which is no column of the data"],
    ),
}


@pytest.fixture(scope="module")
def refusals(folder: Path) -> dict[str, tuple[int, str, str, list[str]]]:
    return dict(zip(REFUSED, run_all([line for line, _ in REFUSED.values()], folder), strict=True))


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, refusals: dict[str, tuple[int, str, str, list[str]]], folder: Path) -> None:
    code, out, err, heavy = refusals[case]
    assert code == 2, err
    assert out == ""
    assert heavy == []
    for words in REFUSED[case][1]:
        assert words in err
    assert "Traceback" not in err
    assert not (folder / "outputs").exists()


def test_the_program_itself(folder: Path) -> None:
    """In a pipe, without torch where none is needed, leaving nothing behind."""
    before = sorted(path.name for path in folder.iterdir() if path.name != "__pycache__")
    ((code, out, err, heavy),) = run_all([command(*mine("right"), "--completion", "1")], folder)
    assert (code, heavy) == (0, []), err
    assert "\x1b" not in out
    assert sorted(path.name for path in folder.iterdir() if path.name != "__pycache__") == before
    done = run(command("--completion", "1", "--json"), folder)
    assert json.loads(done.stdout)["reward"] == 1.0
    done = run(["reward", "--help"], folder)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: pggrpo reward test")
    assert run(["reward"], folder).returncode == 2


def test_typed_on_a_terminal(folder: Path) -> None:
    terminal, other = pty.openpty()
    program = subprocess.Popen(
        [sys.executable, "-m", "pggrpo_cli", *command("--row", "1")],
        cwd=folder, env=environment() | {"NO_COLOR": "1", "COLUMNS": "80"}, stdin=other, stdout=other, stderr=other,
    )  # fmt: skip
    os.close(other)
    os.write(terminal, b"2\nseven\n\n")
    out = b""
    try:
        while chunk := os.read(terminal, 65536):
            out += chunk
    except OSError:  # so a terminal ends whose other side is closed
        pass
    os.close(terminal)
    assert program.wait(60) == 0
    text = out.decode()
    assert "row 1: 1 + 1 = " in text
    assert "seven" in text
    assert "exact_answer: mean 0.5" in text


PAST = [*DATA[:2], "data.eval_size=2", "seed=7", "data.prompt_suffix='!'", "data.as_chat=true"]


@pytest.fixture(scope="module")
def run_dir(folder: Path) -> Path:
    """What a run leaves behind, by the parts that write it: a step, a second one on the same row, an evaluation."""
    config = checked(compose("train", [*PAST, "model=tiny", f"data.path={folder / 'sums.jsonl'}"]))
    tokenizer, rows = tiny_policy().tokenizer, load_rows(config)[0]
    prompt_format = format_of(config.data)
    past = folder / "past"
    past.mkdir()
    runs.save_config(past, as_dict(config) | {"data": config.data | {"path": "sums.jsonl"}})
    context = RewardContext(run_dir=past, device="cpu", seed=7)
    with open_scorer(config, context) as scorer, Recorder(past) as recorder:
        for step, split, held_out in ((1, rows.train, False), (1, rows.evaluation, True), (2, rows.train, False)):
            groups = [
                RolloutGroup(prompt=prompt, rollouts=[rollout(text) for text in ("1", prompt.row.columns["answer"])])
                for prompt in render_rows(split, tokenizer, prompt_format, 200, [0]).prompts
            ]
            scored, _ = score_groups(groups, scorer.begin(), GroupMean(), step)
            recorder.samples(step, scored, held_out=held_out)
    return past


def rollout(text: str) -> Rollout:
    return Rollout(completion_ids=torch.zeros(2, dtype=torch.long), logprobs=None, text=text, finish_reason="stop")


def test_a_past_run_is_scored_again(run_dir: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples = [json.loads(line) for line in (run_dir / "samples.jsonl").read_text().splitlines()]
    assert {one["held_out"] for one in samples} == {True, False}
    words = ["reward", "test", "--completions", "past/samples.jsonl", "--json"]
    assert cli.main(words) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(found) == len(samples)
    assert [one["reward"] for one in found] == [one["reward"] for one in samples]
    assert [one["recorded_reward"] for one in found] == [one["reward"] for one in samples]
    assert [one["completion"] for one in found] == [one["completion"] for one in samples]
    assert all(one["prompt"][-1]["content"] in past["prompt"] for one, past in zip(found, samples, strict=True))
    with_groups = {(one["held_out"], one["prompt_index"], one["step"]) for one in samples}
    assert len({one["group"] for one in found}) == len(with_groups)
    assert cli.main([*words, *mine("prompts")]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {one["reward"] for one in found} == {1.0}
    assert cli.main([*words[:-1]]) == 0
    header = next(line for line in capsys.readouterr().out.splitlines() if "completion" in line and "reward" in line)
    assert header.split() == ["row", "completion", "exact_answer", "reward", "was"]


def test_a_past_run_with_other_data(run_dir: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["reward", "test", *PAST, "seed=3", "--completions", "past/samples.jsonl"]) == 2
    assert "past/samples.jsonl:" in (err := capsys.readouterr().err)
    assert "its prompt is not that of row" in err


def test_code_that_a_run_names_is_not_run_unasked(
    run_dir: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "copy").mkdir()
    (here / "copy" / "samples.jsonl").write_bytes((run_dir / "samples.jsonl").read_bytes())
    config = (run_dir / "config.yaml").read_text()
    (here / "copy" / "config.yaml").write_text(config.replace("pggrpo_cli.data.jsonl.Jsonl", "mine.Evil"))
    assert cli.main(["reward", "test", "--completions", "copy/samples.jsonl"]) == 2
    err = capsys.readouterr().err
    assert "`data._target_`" in err
    assert "security.allow_targets=[mine.Evil]" in err
    values = yaml.safe_load(config)
    values["data"] |= {"_target_": "pggrpo_cli.data.verifiers.Verifiers", "environment": "evil_env"}
    (here / "copy" / "config.yaml").write_text(yaml.safe_dump(values))
    (here / "evil_env.py").write_text("open('canary', 'w')\n")
    assert cli.main(["reward", "test", "--completions", "copy/samples.jsonl"]) == 2
    assert "the code of the environment evil_env" in capsys.readouterr().err
    assert not (here / "canary").exists()


@pytest.mark.slow
def test_a_real_run_is_scored_again(folder: Path) -> None:
    line = ["train", "debug=fast", "logger=[]", "trainer.max_steps=1", "hydra.run.dir=real"]
    done = run(line, folder)
    assert done.returncode == 0, done.stderr
    done = run(["reward", "test", "reward=length", "--completions", "real/samples.jsonl", "--json"], folder)
    assert done.returncode == 0, done.stderr
    samples = [json.loads(line) for line in (folder / "real" / "samples.jsonl").read_text().splitlines()]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["completion"] for one in found] == [one["completion"] for one in samples]
    assert [one["recorded_reward"] for one in found] == [one["reward"] for one in samples]


def test_the_tokens_of_a_past_run_are_its_own(run_dir: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not the bytes of its texts: the rewards see two tokens, whatever the text."""
    file = run_dir / "samples.jsonl"
    past = [json.loads(line) for line in file.read_text().splitlines()]
    assert all(line["completion_ids"] == [0, 0] for line in past)
    words = ["reward=length", "reward.length.target_tokens=2", "--json"]
    assert cli.main(["reward", "test", "--completions", "past/samples.jsonl", *words]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {one["reward"] for one in found} == {1.0}
