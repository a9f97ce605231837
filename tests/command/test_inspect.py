"""`pggrpo inspect` on a real run of the tiny model: its numbers against transformers' own forward."""

from __future__ import annotations

import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from pggrpo_cli.cli import main
from pggrpo_cli.inspection import inspect_step
from pggrpo_cli.report.run import Run, read_run
from tests.command_line import run as run_command

WORDS = [
    "train", "debug=fast", "data=jsonl", "data.path=q.jsonl", "data.eval_size=1", "logger=[]", "hydra.run.dir=run",
    "reward=regex", "reward.regex.pattern='[a-z0-9]'", "optimizer.lr=0.05", "sampler.max_new_tokens=6", "sampler.group_size=6",
    "trainer.max_steps=3", "checkpoint.keep_last=5", "loss.beta=0.5", "sampler.temperature=1.5",
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three steps, all their checkpoints; the completions rewritten as text that the tokenizer gives back as it was."""
    folder = tmp_path_factory.mktemp("inspect")
    (folder / "q.jsonl").write_text(
        "".join(json.dumps({"prompt": f"{a} + 1 = ", "answer": "2"}) + "\n" for a in range(4))
    )
    done = run_command(WORDS, folder)
    assert done.returncode == 0, done.stderr
    file = folder / "run" / "samples.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for line in lines:
        line |= {"completion": f"ab{line['sample']}\nz!", "finish_reason": "length" if line["sample"] else "stop"}
        for name in ("prompt_ids", "completion_ids", "logprobs"):  # as an earlier release left it
            line.pop(name, None)
        line["advantage"] = None if line["held_out"] else 0.5 if line["sample"] % 2 else -0.5
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    metrics = folder / "run" / "metrics.jsonl"
    text = re.sub(
        r'"completions/mean_length": [\d.]+', f'"completions/mean_length": {(5 * 6 + 7) / 6}', metrics.read_text()
    )
    metrics.write_text(text)
    return folder


def by_transformers(folder: Path, text: str, closed: bool) -> list[float]:
    """log π of each token at temperature 1.5, by an ordinary forward of the whole text."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    prompt, completion = text.split("|")
    first = tokenizer(prompt)["input_ids"]
    rest = tokenizer(completion)["input_ids"] + ([tokenizer.eos_token_id] if closed else [])
    with torch.no_grad():
        logits = model(torch.tensor([first + rest])).logits[0].double() / 1.5
    table = logits.log_softmax(-1)
    return [float(table[len(first) - 1 + place, token]) for place, token in enumerate(rest)]


def read(folder: Path) -> Run:
    return read_run(folder / "run", "run")


def test_numbers_are_those_of_the_checkpoints(trained: Path) -> None:
    run = read(trained)
    completions = run.samples.read(2, held_out=False)
    chosen = [one for one in completions if one.prompt_index == completions[0].prompt_index]
    found = inspect_step(run, 2, chosen)
    assert (found.old, found.new) == ("step 1", "step 2")
    assert len(found.notes) == 1
    assert "is what training logged" in found.notes[0]
    for one in found.completions:
        text, closed = f"{one.completion.prompt}|{one.completion.completion}", one.completion.finish_reason == "stop"
        old, new = (
            by_transformers(trained / "run" / "checkpoints" / f"step-00000{step}", text, closed) for step in (1, 2)
        )
        assert one.old == pytest.approx(old, abs=1e-4)
        assert one.new == pytest.approx(new, abs=1e-4)
        assert len(one.tokens) == (7 if closed else 6)
        assert max(abs(a - b) for a, b in zip(old, new, strict=True)) > 0.01  # the step did something
        ratio = math.exp(0.5 * (sum(new) - sum(old)))
        assert one.ratio == pytest.approx(ratio, rel=1e-3)
        advantage = one.completion.advantage
        assert advantage is not None
        outside = ratio > 1.2 if advantage > 0 else ratio < 0.8
        assert one.clipped == float(outside)
        assert one.reference is not None


def test_tokens_and_old_log_probabilities_are_those_sampled(trained: Path, tmp_path: Path) -> None:
    """Also where the text of the tokens is another's: é as two bytes that were sampled one by one, an end token within."""
    shutil.copytree(trained / "run", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-000001")  # not needed: old is known
    file = tmp_path / "run" / "samples.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for line in lines:
        line |= {"completion_ids": [66, 256, 3], "logprobs": [-1.5, -0.25, -3.0], "completion": "tokenised otherwise"}
        if line["sample"] == 0:
            line["prompt_ids"] = [17, 221, 11]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = read(tmp_path)
    completions = run.samples.read(2, held_out=False)
    found = inspect_step(run, 2, [one for one in completions if one.prompt_index == completions[-1].prompt_index])
    assert (found.old, found.new, found.notes) == ("as sampled", "step 2", [])
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "checkpoints" / "step-000002", dtype=torch.float32)
    with torch.no_grad():
        table = (model.eval()(torch.tensor([[17, 221, 11, 66, 256, 3]])).logits[0].double() / 1.5).log_softmax(-1)
    expected = [float(table[2, 66]), float(table[3, 256]), float(table[4, 3])]
    assert len(found.completions) == 6
    for one in found.completions:
        assert one.old == [-1.5, -0.25, -3.0]
        assert one.new == pytest.approx(expected, abs=1e-4)
        assert len(one.tokens) == 3


@pytest.mark.parametrize(
    "broken", [{"completion_ids": [1, "a"]}, {"logprobs": [-1.0]}, {"logprobs": [None, -1.0, -1.0]}]
)
def test_broken_tokens_are_as_good_as_none(trained: Path, tmp_path: Path, broken: dict[str, Any]) -> None:
    shutil.copytree(trained / "run", tmp_path / "run")
    file = tmp_path / "run" / "samples.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    tokens = {"completion_ids": [66, 256, 3], "logprobs": [-1.5, -0.25, -3.0], "prompt_ids": [17]}
    file.write_text("".join(json.dumps(line | tokens | broken) + "\n" for line in lines))
    run = read(tmp_path)
    found = inspect_step(run, 2, run.samples.read(2, held_out=False)[:1])
    assert found.old == "step 1"
    assert len(found.completions[0].tokens) == (3 if "logprobs" in broken else 7)


@pytest.mark.parametrize(("key", "token"), [("completion_ids", 99_999), ("prompt_ids", 260), ("prompt_ids", 2**70)])
def test_tokens_that_the_model_has_not(
    trained: Path, tmp_path: Path, key: str, token: int, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained / "run", tmp_path / "run")
    file = tmp_path / "run" / "samples.jsonl"
    tokens = {"completion_ids": [66, 256, 3], "logprobs": [-1.5, -0.25, -3.0], "prompt_ids": [17]}
    lines = [json.loads(line) | tokens for line in file.read_text().splitlines()]
    for line in lines:
        if (line["step"], line["sample"]) == (2, 1):
            line[key] = [1, token, 3]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["inspect", str(tmp_path / "run"), "--step", "2"]) == 2
    said = capsys.readouterr().err
    where = (
        f"{file}: step 2, prompt_index {next(line['prompt_index'] for line in lines if line['step'] == 2)}, sample 1"
    )
    assert f"{where}: `{key}` has the token {token}, and the model only those below 260" in said
    assert main(["inspect", str(tmp_path / "run"), "--step", "3"]) == 0  # of other steps


@pytest.mark.slow
def test_a_run_is_inspected_as_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the sampler noted is what the checkpoint before the step gives."""
    (tmp_path / "q.jsonl").write_text('{"prompt": "1 + 1 = "}\n{"prompt": "1 + 2 = "}\n{"prompt": "1 + 3 = "}\n')
    assert run_command(WORDS, tmp_path).returncode == 0
    run = read(tmp_path)
    chosen = run.samples.read(2, held_out=False)[:6]
    noted = inspect_step(run, 2, chosen)
    forgotten = [replace(one, logprobs=None) for one in chosen]
    computed = inspect_step(run, 2, forgotten)
    assert (noted.old, computed.old) == ("as sampled", "step 1")
    for one, other in zip(noted.completions, computed.completions, strict=True):
        assert one.old == pytest.approx(other.old, abs=1e-4)
        assert one.new == other.new


@pytest.mark.slow
def test_the_first_step_began_with_the_model_before_training(trained: Path) -> None:
    run = read(trained)
    found = inspect_step(run, 1, run.samples.read(1, held_out=False)[:1])
    assert (found.old, found.new) == ("before training", "step 1")
    assert found.completions[0].old == found.completions[0].reference


def test_what_cannot_be_known_is_said(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(trained, folder)
    shutil.rmtree(folder / "run" / "checkpoints" / "step-000002")
    config = folder / "run" / "config.yaml"
    config.write_text(config.read_text().replace("init_seed: 0", "init_seed: 5"))
    metrics = folder / "run" / "metrics.jsonl"
    metrics.write_text(
        re.sub(r'"completions/mean_length": [\d.]+', '"completions/mean_length": 9.0', metrics.read_text())
    )
    run = read(folder)
    found = inspect_step(run, 2, run.samples.read(2, held_out=False)[:1])
    assert (found.old, found.new) == ("step 1", "step 3")
    said = "\n".join(found.notes)
    assert "no reference: the model's files are not those" in said
    assert "lie more steps than one" in said
    assert "not those sampled: mean length 6.17; in training it was 9.00" in said
    assert found.completions[0].reference is None
    assert found.completions[0].ratio is None  # this loss has a KL, and so needs the reference


@pytest.mark.parametrize(("group", "node"), [
    ("model", {"_target_": "evil_mod.call"}),
    ("loss", {"_target_": "evil_mod.call"}),
    ("loss", {"beta": {"_target_": "evil_mod.call"}}),
    ("loss", {"beta": "${oc.create:{_target_:evil_mod.call}}"}),
    ("model", {"init_seed": [{"a": {"_target_": "evil_mod.call"}}]}),
])  # fmt: skip
@pytest.mark.fault("T30")
def test_code_of_a_run_is_not_run_unasked(
    trained: Path,
    tmp_path: Path,
    group: str,
    node: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(trained / "run", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    Path("evil_mod.py").write_text("open('canary', 'w')\ndef call(**keys):\n    return 0.5\n")
    values = yaml.safe_load(Path("run/config.yaml").read_text())
    values[group] |= node
    Path("run/config.yaml").write_text(yaml.safe_dump(values))
    assert main(["inspect", "run", "--step", "2"]) == 2
    assert f"`{group}." in capsys.readouterr().err
    assert not Path("canary").exists()


@pytest.mark.fault("T30")
def test_code_of_a_run_is_run_when_allowed(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained / "run", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    Path("my_betas.py").write_text("def beta():\n    return 0.5\n")
    values = yaml.safe_load(Path("run/config.yaml").read_text())
    values["loss"]["beta"] = {"_target_": "my_betas.beta"}
    Path("run/config.yaml").write_text(yaml.safe_dump(values))
    assert main(["inspect", "run", "--step", "2"]) == 2
    assert "add security.allow_targets=[my_betas.beta]" in capsys.readouterr().err
    assert main(["inspect", "run", "--step", "2", "security.allow_targets=[my_betas]"]) == 0
    assert "ratio" in capsys.readouterr().out


def test_what_is_shown(trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(trained)
    assert main(["inspect", "run", "--step", "2", "--prompt", "1"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("step 2: old is step 1, new is step 2\n")
    assert text.count("completion ") == 6
    assert "⏎" in text
    assert re.search(r"ratio \d\.\d+, (not )?clipped", text)


@pytest.mark.parametrize(("words", "code", "said"), [
    (["run"], 2, "--step"),
    (["run", "--step", "x"], 2, "--step"),
    (["run", "--step", "9"], 2, "it has those of steps 1 to 3"),
    (["run", "--step", "2", "--prompt", "7"], 2, "step 2 has 2 prompts, 0 to 1"),
    (["nowhere", "--step", "2"], 2, "nowhere is not there"),
    (["run", "--step", "2", "loss.beta=1"], 2, "`loss.beta`: pggrpo inspect changes no key"),
    (["run", "--step", "2", "security.allow_targets=mine"], 2, "is a list of text"),
])  # fmt: skip
def test_refusals(
    trained: Path,
    words: list[str],
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(trained)
    assert main(["inspect", *words]) == code
    assert said in capsys.readouterr().err


def test_without_checkpoints(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(trained / "run", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    assert main(["inspect", str(tmp_path / "run"), "--step", "2"]) == 4
    assert "no checkpoint of step 2 or later" in capsys.readouterr().err
