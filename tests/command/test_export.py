"""`pggrpo export`: the folder is the checkpoint's model bit for bit, whole or not there, and tells no secrets.

The runs here are copies of the one in tests/golden, which the program itself trained; so nothing is trained here.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from pggrpo_cli.cli import main
from pggrpo_cli.errors import CheckpointError
from pggrpo_cli.exporting import hf_folder
from pggrpo_cli.manifest import write_manifest
from tests.command_line import ROOT, environment, run, run_all
from tests.conftest import tiny_model

GOLDEN = ROOT / "tests" / "golden" / "0.1.0" / "run"
EXPORTED = {
    "README.md", "chat_template.jinja", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
    "tokenizer_config.json",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a run of two checkpoints, of which the first was the best and has other weights."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(GOLDEN, "run")
    newest, first = Path("run/checkpoints/step-000002"), Path("run/checkpoints/step-000001")
    shutil.copytree(newest, first)
    tensors = {name: tensor * 1.25 for name, tensor in load_file(first / "model.safetensors").items()}
    save_file(tensors, first / "model.safetensors", {"format": "pt"})
    write_manifest(first, 1)
    say_best(newest, 1, 0.25)
    return tmp_path


def say_best(checkpoint: Path, step: int | None, value: float = 0.0) -> None:
    state = json.loads((checkpoint / "state.json").read_text())
    state["progress"]["best"] = {} if step is None else {"step": step, "value": value}
    (checkpoint / "state.json").write_text(json.dumps(state))
    values = yaml.safe_load((checkpoint.parents[1] / "config.yaml").read_text())
    values["checkpoint"]["keep_best"] = "eval/reward:max"
    (checkpoint.parents[1] / "config.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    write_manifest(checkpoint, 2)


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path / "model.safetensors")


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def rest(folder: Path) -> set[str]:
    """What an export must not leave."""
    return {path.name for path in folder.iterdir()} & {name for name in os.listdir(folder) if name.startswith(".")}


def test_the_real_program(folder: Path) -> None:
    done = run(["export", "run", "out"], folder)
    assert done.returncode == 0, done.stderr
    assert "step-000001 (the best: eval/reward 0.25); its checksums match" in done.stdout
    assert "the same logits" in done.stdout
    out = folder / "out"
    assert {path.name for path in out.iterdir()} == EXPORTED
    assert equal(weights(out), weights(folder / "run/checkpoints/step-000001"))
    assert rest(folder) == set()
    assert len({path.stat().st_mode for path in out.iterdir()}) == 1
    module = AutoModelForCausalLM.from_pretrained(out, trust_remote_code=False)
    assert module.get_output_embeddings().weight is module.get_input_embeddings().weight
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert tokenizer.chat_template
    assert module.generation_config.eos_token_id == tokenizer.eos_token_id
    # Another implementation of the same: the raw tensors of the checkpoint in a model made by hand.
    twin = AutoModelForCausalLM.from_config(module.config)
    twin.load_state_dict(weights(folder / "run/checkpoints/step-000001"), strict=False)
    ids = torch.tensor([[3, 1, 4, 1, 5]])
    assert torch.equal(twin.eval()(ids).logits, module.eval()(ids).logits)
    for text in ("README.md", "config.json", "generation_config.json", "tokenizer_config.json"):
        content = (out / text).read_text()
        assert str(folder) not in content
        assert os.path.expanduser("~/") not in content


def test_help_and_refusals_need_no_torch(folder: Path) -> None:
    (folder / "file").write_text("")
    (folder / "notes").mkdir()
    (folder / "notes" / "mine.txt").write_text("dear diary")
    cases = [
        (["--help"], 0, ""), ([], 2, ""), (["run"], 2, "OUT"), (["run", "a", "b"], 2, "unrecognized arguments: b"),
        (["run", "out", "--dtyp", "x"], 2, "Did you mean --dtype?"),
        (["run", "out", "--dtype", "float16"], 2, "'float32', 'bfloat16'"),
        (["run", "file"], 2, "is a file"), (["run", "file/x"], 2, "is a file"),
        (["run", "notes"], 2, "is there already"), (["run", "notes", "--force"], 2, "is no model folder"),
        (["run", "run"], 2, "holds run"), (["run", ".", "--force"], 2, "holds run"), (["run", ""], 2, "no name of a folder"),
        (["run", "run/checkpoints", "--force"], 2, "is no model folder"),
        (["run/checkpoints/step-000002", "run/checkpoints/step-000002", "--force"], 2, "which is to be exported"),
        (["nowhere", "out"], 4, "is no directory"), (["notes", "out"], 4, "not the directory of a run"),
        (["run", "out", "--checkpoint", "step-7"], 4, "step-000001, step-000002"),
        (["run", "out", "--checkpoint", "bset"], 2, "best, last or step-N"),
        (["run/checkpoints/step-000002", "out", "--checkpoint", "last"], 2, "is one checkpoint already"),
        (["run", "out", "--hub", "nobody"], 2, "OWNER/NAME"),
    ]  # fmt: skip
    for (words, code, said), found in zip(
        cases, run_all([["export", *words] for words, *_ in cases], folder), strict=True
    ):
        assert found[0] == code, (words, found)
        assert said in found[2]
        assert found[3] == []
    assert not (folder / "out").exists()
    assert (folder / "notes" / "mine.txt").read_text() == "dear diary"


@pytest.mark.parametrize(("words", "step", "said"), [
    ([], 1, "the best: eval/reward 0.25"),
    (["--checkpoint", "best"], 1, "the best"),
    (["--checkpoint", "last"], 2, "the last"),
    (["--checkpoint", "step-2"], 2, "as you named it"),
    (["--checkpoint", "step-000001"], 1, "as you named it"),
])  # fmt: skip
def test_which_checkpoint(
    words: list[str], step: int, said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "run", "out", *words]) == 0
    out = capsys.readouterr().out
    assert f"step-{step:06d} (" in out
    assert said in out
    assert equal(weights(folder / "out"), weights(folder / f"run/checkpoints/step-{step:06d}"))
    assert f"after step {step} of 2" in (folder / "out/README.md").read_text()


def test_without_a_best(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    say_best(Path("run/checkpoints/step-000002"), None)
    assert main(["export", "run", "out", "--checkpoint", "best"]) == 4
    assert "has no best checkpoint" in capsys.readouterr().err
    assert main(["export", "run", "out"]) == 0
    assert "(the last)" in capsys.readouterr().out


def test_a_best_that_is_broken(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = folder / "run/checkpoints/step-000001/model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    assert main(["export", "run", "out", "--checkpoint", "best"]) == 4
    assert "does not match its SHA-256" in capsys.readouterr().err
    assert not (folder / "out").exists()
    assert main(["export", "run", "out"]) == 0
    found = capsys.readouterr()
    assert "cannot be used, so the last one is exported" in found.err
    assert "step-000002 (the last)" in found.out


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_another_dtype_is_the_cast_and_nothing_else(
    dtype: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "run", "out", "--dtype", dtype]) == 0
    kind = {"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype]
    before = weights(folder / "run/checkpoints/step-000001")
    assert equal(weights(folder / "out"), {name: tensor.to(kind) for name, tensor in before.items()})
    module = AutoModelForCausalLM.from_pretrained(folder / "out", dtype="auto")
    assert module.dtype == kind
    assert module.get_output_embeddings().weight is module.get_input_embeddings().weight
    assert f"in {dtype}" in (folder / "out/README.md").read_text()
    # From what was narrowed it cannot come back, and what is exported again is the same.
    assert main(["train", "--cfg", "job", "model=hf", "model.path=out"]) == 0


@pytest.mark.parametrize(("tied", "dtype"), [(False, "float32"), (False, "bfloat16"), (True, "bfloat16")])
def test_a_checkpoint_outside_of_its_run(
    tied: bool, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also: of bfloat16 weights, and of a model whose head is a matrix of its own."""
    monkeypatch.chdir(tmp_path)
    loaded = tiny_model().load()
    module = loaded.module
    if not tied:
        module.config.tie_word_embeddings = False
        module.lm_head.weight = torch.nn.Parameter(module.lm_head.weight.detach().clone() + 1)
    module.to({"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype]).save_pretrained("step-000007")
    loaded.tokenizer.save_pretrained("step-000007")
    write_manifest(Path("step-000007"), 7)
    assert main(["export", "step-000007", "deep/er/out"]) == 0
    assert equal(weights(Path("deep/er/out")), weights(Path("step-000007")))
    found = AutoModelForCausalLM.from_pretrained("deep/er/out", dtype="auto")
    assert (found.get_output_embeddings().weight is found.get_input_embeddings().weight) == tied
    assert ("tied" in capsys.readouterr().out) == tied
    assert "nothing is known of how it was trained" in Path("deep/er/out/README.md").read_text()


def test_force_replaces_a_model_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "run", "out"]) == 0
    (folder / "out" / "stale.txt").write_text("")
    assert main(["export", "run", "out", "--checkpoint", "last"]) == 2
    assert "--force to replace it" in capsys.readouterr().err
    assert (folder / "out" / "stale.txt").exists()
    assert main(["export", "run", "out", "--checkpoint", "last", "--force"]) == 0
    assert {path.name for path in (folder / "out").iterdir()} == EXPORTED
    assert equal(weights(folder / "out"), weights(folder / "run/checkpoints/step-000002"))
    assert rest(folder) == set()


def test_what_differs_is_never_put_in_place(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compare = hf_folder._compare_tensors

    def harmed(checkpoint: Path, temporary: Path, dtype: torch.dtype, *, blind: bool) -> int:
        tensors = load_file(temporary / "model.safetensors")
        name = next(name for name in tensors if "q_proj" in name)
        tensors[name] = tensors[name].clone()
        tensors[name][0, 0] += 1e-3
        save_file(tensors, temporary / "model.safetensors", {"format": "pt"})
        return 0 if blind else compare(checkpoint, temporary, dtype)

    for blind, said in (
        (False, "the exported tensor .*q_proj"),
        (True, "logits differ from the checkpoint's by up to"),
    ):
        monkeypatch.setattr(hf_folder, "_compare_tensors", lambda *given, blind=blind: harmed(*given, blind=blind))
        with pytest.raises(CheckpointError, match=said):
            hf_folder.export_folder(Path("run/checkpoints/step-000002"), Path("out"), None, lambda dtype: "")
        assert not (folder / "out").exists()
        assert rest(folder) == set()


KILLER = """
import os, signal, sys
from pggrpo_cli import whole_folder
from pggrpo_cli.exporting import export_source, hf_folder
from pggrpo_cli.cli import main
owners = {"export_source": export_source, "hf_folder": hf_folder, "whole_folder": whole_folder, "os": os}
owner, name, nth = owners[sys.argv[1]], sys.argv[2], int(sys.argv[3])
original, count = getattr(owner, name), [0]
def call(*given, **named):
    count[0] += 1
    if count[0] == nth:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*given, **named)
setattr(owner, name, call)
sys.exit(main(sys.argv[4:]))
"""


def killed(point: list[str], words: list[str], folder: Path) -> None:
    command = [sys.executable, "-c", KILLER, *point, *words]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.slow
def test_killed_between_the_renames_of_a_replacement(folder: Path) -> None:
    assert main(["export", "run", "out", "--checkpoint", "last"]) == 0
    killed(["os", "rename", "2"], ["export", "run", "out", "--force"], folder)
    assert not (folder / "out").exists()
    assert main(["export", "run", "out"]) == 2  # what was there has come back, and is not replaced unasked
    assert equal(weights(folder / "out"), weights(folder / "run/checkpoints/step-000002"))
    assert main(["export", "run", "out", "--force"]) == 0
    assert equal(weights(folder / "out"), weights(folder / "run/checkpoints/step-000001"))
    assert rest(folder) == set()


@pytest.mark.slow
@pytest.mark.parametrize("point", [
    ["hf_folder", "_write_model", "1"], ["hf_folder", "_compare_tensors", "1"], ["hf_folder", "flush", "3"],
    ["hf_folder", "put_in_place", "1"], ["os", "rename", "1"], ["whole_folder", "flush", "1"], ["export_source", "remove", "1"],
])  # fmt: skip
@pytest.mark.parametrize("replacing", [False, True])
def test_killed_anywhere(point: list[str], replacing: bool, folder: Path) -> None:
    if replacing:
        assert main(["export", "run", "out", "--checkpoint", "last"]) == 0
    if point[1] == "remove":  # of what an earlier, killed one has left
        killed(["hf_folder", "put_in_place", "1"], ["export", "run", "out", "--force"], folder)
    killed(point, ["export", "run", "out", "--force"], folder)
    steps = [step for step in (1, 2) if (folder / "out").exists()
             and equal(weights(folder / "out"), weights(folder / f"run/checkpoints/step-{step:06d}"))]  # fmt: skip
    assert (folder / "out").exists() == bool(steps)
    assert main(["export", "run", "out", "--force"]) == 0
    assert equal(weights(folder / "out"), weights(folder / "run/checkpoints/step-000001"))
    assert rest(folder) == set()


def change_config(**values: Any) -> None:
    found = yaml.safe_load(Path("run/config.yaml").read_text())
    Path("run/config.yaml").write_text(yaml.safe_dump(found | values, sort_keys=False))


def test_a_strangers_run_runs_no_code(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "evil.py").write_text("open('canary', 'w')\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder)])
    for group in ("loss", "model", "data", "optimizer"):
        change_config(**{group: {"_target_": "evil.Part"}})
    assert main(["export", "run", "out"]) == 0
    assert not (folder / "canary").exists()
    assert "evil.Part" in (folder / "out/README.md").read_text()


def test_a_model_that_brings_code_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = Path("run/checkpoints/step-000001")
    config = json.loads((checkpoint / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "evil.Model"}
    (checkpoint / "config.json").write_text(json.dumps(config))
    (checkpoint / "evil.py").write_text("open('canary', 'w')\n")
    write_manifest(checkpoint, 1)
    assert main(["export", "run", "out"]) == 2
    assert "auto_map" in capsys.readouterr().err
    assert not (folder / "out").exists()
    assert not (folder / "canary").exists()


def test_a_folder_that_cannot_be_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "closed").mkdir(mode=0o500)
    # Root may write everywhere but there, where nothing has room.
    out, said = ("closed/out", "cannot be written") if os.geteuid() else ("/proc/out", "GB are free there")
    assert main(["export", "run", out]) == 2
    assert said in capsys.readouterr().err


def test_a_disk_that_refuses(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(hf_folder, "flush", full)
    assert main(["export", "run", "out"]) == 2
    assert (
        "out: cannot be written: [Errno 28] No space left on device. Nothing of it is left" in capsys.readouterr().err
    )
    assert not (folder / "out").exists()
    assert rest(folder) == set()
    usage = shutil.disk_usage(folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10))
    assert main(["export", "run", "out"]) == 2
    assert "0.00 GB are free" in capsys.readouterr().err
