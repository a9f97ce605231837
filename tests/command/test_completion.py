"""`pggrpo completion`: what is offered, by the program itself and in a real bash; never an error, never torch."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pggrpo_cli.cli import main
from pggrpo_cli.command.completion import SCRIPTS
from pggrpo_cli.completions import complete
from tests.command_line import ROOT, environment, make_groups, run

BREAKS = " \t\n\"'><=;|&(:"
"""Where bash breaks words unless told otherwise."""


def offered(*words: str) -> list[str]:
    return [one for one, _ in complete(words)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("words", "expected"), [
    (["tr"], ["train"]),
    (["exp"], ["export"]),
    (["--v"], ["--version"]),
    (["train", "loss=g"], ["loss=grpo", "loss=grpo_token", "loss=gspo"]),
    (["train", "+experiment=d"], ["+experiment=dpo_arithmetic"]),
    (["train", "reward=[exact_answer,form"], ["reward=[exact_answer,format"]),
    (["train", "reward=[format,form"], []),
    (["train", "-m", "loss=grpo,pg"], ["loss=grpo,pg_grpo"]),
    (["train", "sched"], ["scheduler=", "scheduler."]),
    (["train", "loss.b"], ["loss.beta="]),
    (["train", "loss=grpo", "loss.b"], []),
    (["train", "loss=dpo", "loss.n"], ["loss.nll_coef="]),
    (["train", "-m", "loss=dpo,grpo", "loss.nll"], ["loss.nll_coef="]),
    (["train", "experiment=dpo_arithmetic", "loss.nll"], ["loss.nll_coef="]),
    (["train", "data=preference_jsonl", "sampler."], ["sampler.group_size=", "sampler.temperature="]),
    (["train", "~trainer.max_r"], ["~trainer.max_refills="]),
    (["train", "reward.exact_answer.on"], ["reward.exact_answer.on_error="]),
    (["train", "loss.kl_estimator="], ["loss.kl_estimator=k1", "loss.kl_estimator=k2", "loss.kl_estimator=k3"]),
    (["train", "trainer.mask_truncated=t"], ["trainer.mask_truncated=true"]),
    (["train", "trainer.max_minutes="], ["trainer.max_minutes=null"]),
    (["train", "trainer.max_steps="], ["trainer.max_steps=24"]),
    (["train", "model=tiny", "model.family=q"], ["model.family=qwen2", "model.family=qwen3"]),
    (["train", "reference.dtype=b"], ["reference.dtype=bfloat16"]),
    (["train", "reward.exact_answer.on_error="], ["reward.exact_answer.on_error=raise", "reward.exact_answer.on_error=skip"]),
    (["train", "device=c"], ["device=cpu", "device=cuda", "device=cuda:0"]),
    (["train", "optimizer.fused="], ["optimizer.fused="][:0]),
    (["train", "hydra.run"], ["hydra.run.dir="]),
    (["train", "--conf"], ["--config-dir"]),
    (["train", "--cfg", ""], ["job", "hydra", "all"]),
    (["doctor", "loss=h"], ["loss=hinge"]),
    (["doctor", "--j"], ["--json"]),
    (["plan", "loss=h"], ["loss=hinge"]),
    (["plan", "--p"], ["--probe"]),
    (["config", ""], ["ls", "show", "copy", "validate"]),
    (["config", "ls", "los"], ["loss"]),
    (["config", "show", "loss/pg"], ["loss/pg_grpo"]),
    (["config", "show", "loss=gr"], ["loss=grpo", "loss=grpo_token"]),
    (["config", "copy", "loss/pg"], ["loss/pg_grpo"]),
    (["config", "validate", "loss=hi"], ["loss=hinge"]),
    (["completion", ""], ["bash", "zsh", "fish"]),
    (["export", "run", "out", "--checkpoint", ""], ["best", "last", "step-N"]),
    (["export", "--dt"], ["--dtype"]),
    (["nonsense", "x"], []),
    (["train", "loss=["], [f"loss=[{name}" for name in (
        "cispo", "dapo", "dpo", "dr_grpo", "grpo", "grpo_token", "gspo", "hinge", "ipo", "pg_grpo", "sft")]),
])  # fmt: skip
def test_offered(words: list[str], expected: list[str], folder: Path) -> None:
    assert offered(*words) == expected


def test_each_says_what_it_is(folder: Path) -> None:
    assert dict(complete(["train", "loss=grp"]))["loss=grpo"] == "GRPO with the ratio of the whole completion"
    assert dict(complete(["train", "lo"]))["loss="] == "the objective"
    assert "width of the trust region" in dict(complete(["train", "loss.be"]))["loss.beta="]
    assert dict(complete(["train", "loss.kl_estimator="]))["loss.kl_estimator=k3"] == "as it is now"


def test_runs_and_files(folder: Path) -> None:
    for name in ("outputs/2026-11-23/12-00-00-train-a", "outputs/sweeps/2026-11-24/13-00-00-train-b/0"):
        (folder / name).mkdir(parents=True)
        (folder / name / "config.yaml").write_text("name: train")
    (folder / "outputs/2026-11-23/no-run").mkdir()
    (folder / "questions of mine.jsonl").write_text("")
    (folder / ".hidden").write_text("")
    there = ["outputs/sweeps/2026-11-24/13-00-00-train-b/0", "outputs/2026-11-23/12-00-00-train-a"]
    assert offered("resume", "") == there
    assert offered("export", "outputs/s") == there[:1]
    assert offered("export", "q") == ["questions of mine.jsonl"]
    assert offered("resume", there[1], "trainer.max_st") == ["trainer.max_steps="]
    for command in ("eval", "generate"):
        first = offered(command, "")
        assert first[:2] == there
        assert {"smollm2_135m", "tiny"} < set(first)
        assert "hf" not in first  # a model by its path
        assert offered(command, "ti") == ["tiny"]
        assert offered(command, "outputs/s") == there[:1]
        assert offered(command, there[0], "sampler.temp") == ["sampler.temperature="]
        assert offered(command, there[0], "--greedy", "sampler.temp") == ["sampler.temperature="]
        assert offered(command, "tiny", "--file", "") == ["outputs/", "questions of mine.jsonl"]
    assert offered("train", "resume.from=") == [
        "resume.from=auto",
        "resume.from=null",
        *(f"resume.from={one}" for one in there),
    ]
    assert offered("train", "data.path=") == ["data.path=outputs/", "data.path=questions of mine.jsonl"]
    assert offered("train", "model=hf", "model.path=outputs/2026") == ["model.path=outputs/2026-11-23/"]
    assert offered("train", "--config-dir", "") == ["outputs/"]
    assert offered("train", "data.path=nowhere/x") == []


def test_sweeps(folder: Path) -> None:
    there = "outputs/sweeps/2026-11-24/13-00-00-train-b"
    (folder / there / "0").mkdir(parents=True)
    assert offered("sweep", "") == ["status", "resume"]
    assert offered("sweep", "resume", "") == ["outputs/"]  # no sweep is known: any folder
    (folder / there / "sweep.json").write_text("{}")
    assert offered("sweep", "status", "") == [there]
    assert offered("sweep", "status", there, "") == []
    assert offered("sweep", "status", "--j") == ["--json"]
    assert offered("sweep", "resume", there, "sweep.j") == ["sweep.jobs="]
    assert (
        offered("train", "sweep.direction=")
        == ["sweep.direction=maximize", "sweep.direction=minimize", "sweep.direction=null"][:2]
    )
    assert "hydra/launcher=" in offered("train", "hydra")


def test_a_folder_of_ones_own(folder: Path) -> None:
    make_groups(folder / "mine")
    assert offered("train", "--config-dir", "mine", "loss=ot") == ["loss=other"]
    assert offered("train", "loss=ot") == []
    assert offered("train", "-cd", "mine", "loss=other", "loss.") == ["loss.beta="]
    assert offered("config", "show", "--config-dir", "mine", "loss/o") == ["loss/other"]


def test_never_an_error(folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "bad" / "loss").mkdir(parents=True)
    (folder / "bad" / "loss" / "broken.yaml").write_bytes(b"\xff{")
    for words in (
        ["train", "-cd", "bad", "loss=broken", "loss."],
        ["train", "-cd", "nowhere", "loss="],
        [],
        ["--line"],
    ):
        assert main(["__complete", *words]) == 0
    found = capfd.readouterr()
    assert found.err == ""
    assert "loss=grpo" in found.out  # of the second: the folder that is not there hides nothing


def test_a_line_up_to_the_cursor(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for line, expected in (
        ("pggrpo train loss=his", ""),
        ("pggrpo train loss=hi", "loss=hinge\t"),
        ("pggrpo train 'reward=[format,exa", "reward=[format,exact_answer\t"),
        ("pggrpo train name='a b' loss=hi", "loss=hinge\t"),
        ("pggrpo train ", "advantage=\t"),
        ("pggrpo tr", "train\t"),
    ):
        assert main(["__complete", "--line", line]) == 0
        assert capfd.readouterr().out.startswith(expected)


def test_fast_and_without_torch(folder: Path) -> None:
    code = "import sys; from pggrpo_cli.cli import main; main(sys.argv[1:]); print(*sys.modules, file=sys.stderr)"
    for words in (
        ["train", "loss.b"],
        ["train", "experiment=dpo_arithmetic", "reward."],
        ["export", ""],
        ["config", "ls", ""],
    ):
        command = [sys.executable, "-c", code, "__complete", *words]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment(), timeout=60)
        assert done.stdout
        assert not {"torch", "transformers", "datasets", "hydra"} & set(done.stderr.split())
    started = time.monotonic()
    done = run(["__complete", "train", "loss.b"], folder)
    assert time.monotonic() - started < 1.5  # a third of a second on an idle machine
    assert done.stdout.startswith("loss.beta=\t")


BASH_TEST = """
pggrpo() {{ {python} -m pggrpo_cli "$@"; }}
eval "$(pggrpo completion bash)"
complete -p pggrpo
COMP_WORDBREAKS=$2
COMP_LINE=$1
COMP_POINT=${{#COMP_LINE}}
_pggrpo
printf '[%s]\\n' "${{COMPREPLY[@]}}"
"""


@pytest.mark.parametrize(("line", "breaks", "expected"), [
    ("pggrpo tr", BREAKS, ["train "]),
    ("pggrpo train loss=hi", BREAKS, ["hinge "]),
    ("pggrpo train loss=hi", BREAKS.replace("=", ""), ["loss=hinge "]),
    ("pggrpo train reward=[format,exa", BREAKS, ["[format,exact_answer "]),
    ("pggrpo train loss.b", BREAKS, ["loss.beta="]),
    ("pggrpo train device=cuda:", BREAKS, ["0 "]),
    ("pggrpo train device=cuda:", BREAKS.replace(":", ""), ["cuda:0 "]),
    ("pggrpo train 'loss=hi", BREAKS, ["loss=hinge"]),
    ("pggrpo train data.path=sub", BREAKS, ["sub folder/"]),
    ("pggrpo train loss=nonsense", BREAKS, []),
])  # fmt: skip
def test_in_a_real_bash(line: str, breaks: str, expected: list[str], folder: Path) -> None:
    (folder / "sub folder").mkdir()
    done = subprocess.run(
        ["bash", "-c", BASH_TEST.format(python=sys.executable), "bash", line, breaks],
        capture_output=True, text=True, cwd=folder, env=environment(), timeout=60,
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0] == "complete -o nospace -F _pggrpo pggrpo"
    assert lines[1:] == ([f"[{one}]" for one in expected] or ["[]"])


def test_scripts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for shell, script in SCRIPTS.items():
        assert main(["completion", shell]) == 0
        assert capsys.readouterr().out == script
        assert "pggrpo __complete" in script
        assert "2>/dev/null" in script
    assert "compdef _pggrpo pggrpo" in SCRIPTS["zsh"]
    assert "complete -c pggrpo -f -a" in SCRIPTS["fish"]
    assert subprocess.run(["bash", "-n"], input=SCRIPTS["bash"], text=True, check=False).returncode == 0
    assert main(["completion", "tcsh"]) == 2
    assert "bash, zsh, fish" in capsys.readouterr().err
    assert main(["completion", "--help"]) == 0
    assert "~/.bashrc" in capsys.readouterr().out
    assert main(["completion"]) == 2


def test_hydras_own_says_where_to_go(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.environ.pop("COMP_LINE", None)
    assert main(["train", "-sc", "install=bash"]) == 2
    assert "pggrpo completion bash" in capsys.readouterr().err
