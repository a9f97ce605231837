"""pggrpo eval on real runs of the tiny model: its numbers against the run's own, its refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from pggrpo_cli import train
from pggrpo_cli.cli import main
from pggrpo_cli.composing import compose
from tests.command_line import run

WORDS = [
    *("debug=fast", "logger=[]", "model.init_std=0.5", "loss=sft", "optimizer.lr=0.03", "scheduler=constant"),
    *("reward=[repetition,length]", "reward.repetition.unit=token", "reward.repetition.ngram_size=1"),
    *("evaluation.num_prompts=16", "sampler.max_new_tokens=8"),
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("eval") / "run"
    train(compose("train", WORDS), run_dir=folder)
    return folder


def evaluated(*words: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["eval", *words, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_greedy_numbers_are_those_of_the_run(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    by_step = {line["step"]: line["eval/reward"] for line in lines if "eval/reward" in line}
    assert len(set(by_step.values())) > 1
    found = evaluated(str(finished), "--checkpoint", "last", "--prompts", "16", "--samples", "0", capsys=capsys)
    (before, numbers), (after, ours) = found["numbers"].items()
    assert (before, after) == ("before training", f"step 2 of {finished.name}")
    assert numbers["greedy reward"]["mean"] == pytest.approx(by_step[0], abs=1e-6)
    assert ours["greedy reward"]["mean"] == pytest.approx(by_step[2], abs=1e-6)
    assert found["difference"]["greedy reward"]["mean"] == pytest.approx(by_step[2] - by_step[0], abs=1e-6)
    assert not [name for name in ours if name.startswith(("sampled", "pass"))]


def test_samples_pass_at_k_and_parts(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "all.json"
    words = ["reward=format", "reward.format.pattern='.*[a-g].*'", "--samples", "4", "--prompts", "6", "--by", "task"]
    found = evaluated(str(finished), *words, "--k", "1,3", "--base", "none", "-o", str(out), capsys=capsys)
    ((label, numbers),) = found["numbers"].items()
    assert found["difference"] == {}
    assert {"pass@1", "pass@3"} <= numbers.keys()
    assert "pass@2" not in numbers
    assert found["parts"]["chain_sum"][label] == numbers  # there is one task
    whole = json.loads(out.read_text())
    assert {name: whole[name] for name in found} == found
    sampled = [[one["reward"] for one in prompt["said"] if one["kind"] == "sampled"] for prompt in whole["completions"]]
    assert [len(one) for one in sampled] == [4] * 6
    assert numbers["sampled reward"]["mean"] == pytest.approx(sum(map(sum, sampled)) / 24)
    assert 0 < numbers["pass@1"]["mean"] < 1
    assert numbers["pass@1"]["mean"] == pytest.approx(sum(map(sum, sampled)) / 24)
    misses = [4 - sum(one) for one in sampled]  # 1 − C(misses, 3)/C(4, 3)
    expected = sum(1 - {4: 4, 3: 1}.get(int(miss), 0) / 4 for miss in misses) / 6
    assert numbers["pass@3"]["mean"] == pytest.approx(expected)


def test_a_model_by_itself_and_against_another(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--samples", "0", "--prompts", "3", "sampler.max_new_tokens=4", "reward=length"]
    found = evaluated("tiny", *few, capsys=capsys)
    assert list(found["numbers"]) == ["tiny"]
    checkpoint = str(next((finished / "checkpoints").glob("step-*")))
    found = evaluated(checkpoint, *few[:-1], "--base", checkpoint, capsys=capsys)
    assert found["difference"]["greedy reward"] == {"mean": 0.0, "low": 0.0, "high": 0.0}


def test_the_table_fits_a_narrow_terminal(finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["eval", str(finished), "--samples", "0", "--prompts", "2"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 60
    assert "greedy reward" in shown
    assert "95%" in shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "is no run, checkpoint, model folder"),
        (["tiny", "--checkpoint", "best"], "`--checkpoint`: tiny is no run"),
        (["tiny", "model=hf"], "the model is what stands first"),
        (["tiny", "--samples", "2", "--k", "4"], "`--k`: 4 needs numbers from 1 to --samples, which is 2"),
        (["tiny", "--k", "a"], "no list of numbers"),
        (["tiny", "--confidence", "95"], "`--confidence`: 95.0 is not between 0 and 1"),
        (["tiny", "--prompts", "0"], "`--prompts`: 0 leaves nothing"),
        (["tiny", "-o", "no/such/folder/x.json"], "`-o`: there is no folder"),
        (["tiny", "--smaples", "3"], "Did you mean --samples?"),
        (["tiny", "reward.exact_answer.wight=2"], "reward.exact_answer.wight"),
        (["tiny", "data.eval_size=0"], "`data`: holds no rows out"),
        (["tiny", "--by", "tusk"], "`--by`: the rows have no column 'tusk'"),
    ],
)
def test_refusals(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", *words]) == 2
    assert said in capsys.readouterr().err


def test_keys_of_a_run_are_checked_and_its_code_is_not_run(finished: Path, tmp_path: Path, capsys: Any) -> None:
    assert main(["eval", str(finished), "reward.length.scale_tokns=3"]) == 2
    assert "reward.length.scale_tok" in capsys.readouterr().err
    stranger = tmp_path / "run"
    stranger.mkdir()
    (stranger / "checkpoints").symlink_to(finished / "checkpoints")
    values = yaml.safe_load((finished / "config.yaml").read_text())
    values["reward"]["length"] = {"_target_": "os.system", "command": f"touch {tmp_path}/canary"}
    (stranger / "config.yaml").write_text(yaml.safe_dump(values))
    assert main(["eval", str(stranger)]) == 2
    assert "security.allow_targets=[os.system]" in capsys.readouterr().err
    assert not (tmp_path / "canary").exists()


def test_help_needs_no_torch(tmp_path: Path) -> None:
    done = run(["eval", "--help"], tmp_path)
    assert done.returncode == 0
    assert "pggrpo eval RUN|CHECKPOINT|MODEL" in done.stdout
