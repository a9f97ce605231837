"""`pggrpo doctor`: what it sees of the machine and of a run, what it says in a terminal, a pipe and to programs."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import torch

from pggrpo_cli import machine_findings, run_findings
from pggrpo_cli.cli import main
from pggrpo_cli.findings import Finding
from pggrpo_cli.planning import run_plan
from pggrpo_cli.sandbox import bwrap
from tests.command_line import environment, run_all
from tests.conftest import tiny_model

pytestmark = pytest.mark.usefixtures("folder")
TINY = ["model=tiny", "data=jsonl", "data.path=q.jsonl", "data.eval_size=1"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    rows = [{"prompt": f"What is {n} + 1?", "answer": str(n + 1), "level": 1} for n in range(6)]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def look(*overrides: str) -> dict[str, Finding]:
    """By name; the last of those that share one."""
    return {one.name: one for one in run_findings.run_findings(list(overrides), None)}


@pytest.mark.slow
def test_in_a_terminal_of_forty_columns(folder: Path) -> None:
    code, text = in_terminal(["-m", "pggrpo_cli", "doctor", "debug=fast", *TINY[1:]], folder, {})
    assert code == 0, text
    assert "\x1b[32m✓\x1b[0m python: 3." in text
    plain = re.sub(r"\x1b\[\d*m", "", text)
    assert all(len(line) <= 40 for line in plain.splitlines())
    for said in ("tokens: end <|end|> (256)", "rows: 5 to train on, 1 held out", "exact_answer: called on 4 rows"):
        assert said in " ".join(plain.split())


def test_no_colour(folder: Path) -> None:
    code = (
        "from pggrpo_cli.command.doctor import _print\n"
        "from pggrpo_cli.findings import trouble\n"
        "_print(trouble('a', 'b ' * 20, 'c'))"
    )
    for extra in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        expected = f"✗ a: {'b ' * 16}b\n    b b b\n  → c\n"
        assert in_terminal(["-c", code], folder, extra) == (0, expected)


def in_terminal(arguments: list[str], folder: Path, extra: dict[str, str]) -> tuple[int, str]:
    outer, inner = pty.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    variables = {name: value for name, value in environment().items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    program = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder, env={**variables, "TERM": "xterm", **extra}, stdout=inner, stderr=inner,
    )  # fmt: skip
    os.close(inner)
    text = b""
    while True:
        try:
            part = os.read(outer, 65536)
        except OSError:  # Linux says so when the last writer has gone
            break
        if not part:
            break
        text += part
    os.close(outer)
    return program.wait(60), text.decode().replace("\r\n", "\n")


def test_for_programs_and_in_a_pipe(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "loud.py").write_text(
        "print('not JSON')\ndef score(completion, **more):\n    print('nor this')\n    return 1.0\n"
    )
    noisy = ["reward=python", "reward.python.path=loud.py", "reward.python.name=score", "reward.python.isolated=false"]
    assert main(["doctor", "--json", *TINY, *noisy]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is True
    assert all(set(one) == {"name", "status", "says", "advice"} for one in found["findings"])
    assert {"python", "packages", "cpu", "model", "tokens", "data", "prompts", "reward"} <= {
        one["name"] for one in found["findings"]
    }
    assert main(["doctor", *TINY, "sampler.group_size=1"]) == 2
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "✗ data: `sampler.group_size`: 1 completion a prompt leaves nothing to compare" in out
    assert out.splitlines()[-1].startswith("1 in trouble, ")


def test_help_and_refusals(folder: Path) -> None:
    lines = [["doctor", "--help"], ["doctor", "--jsn"], ["doctor", "-cd"]]
    (code, out, _, heavy), (wrong, _, said, _), (bare, *_) = run_all(lines, folder)
    assert (code, heavy) == (0, [])
    assert "usage: pggrpo doctor" in out
    assert (wrong, bare) == (2, 2)
    assert "Did you mean --json?" in said


@pytest.mark.parametrize(("overrides", "name", "said"), [
    (["lss=grpo"], "configuration", "Did you mean loss?"),
    (["sampler.top_p=2", "seed=-1"], "configuration", "`sampler.top_p`: 2 is not ≤ 1"),
    (["optimizer._target_=torch.optim.AdamX"], "configuration", "AdamX"),
    ([*TINY, "model.heads=5"], "model", "`model.heads`: 5 does not divide"),
    ([*TINY, "data.path=none.jsonl"], "data", "`data.path`: none.jsonl does not exist"),
    ([*TINY, "+data.columns.prompt=qestion"], "data", "there is no column 'qestion'"),
    ([*TINY, "sampler.max_new_tokens=512"], "prompts", "leaves no room in a context of 512 tokens"),
    ([*TINY, "data.as_chat=true", "model.chat_template='{{ 1/0 }}'"], "prompts", "cannot render this row"),
    ([*TINY, "device=cuda:7"], "model", "`device`: 'cuda:7' is not there"),
    ([*TINY, "reward=python", "reward.python.path=bad.py", "reward.python.name=score"], "reward", "boom"),
])  # fmt: skip
def test_troubles(overrides: list[str], name: str, said: str, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "bad.py").write_text("def score(completion, **more):\n    raise RuntimeError('boom')\n")
    found = look(*overrides)
    assert found[name].status == "trouble"
    assert said in " ".join(one.says for one in run_findings.run_findings(overrides, None))
    if name == "reward":
        assert "RuntimeError: boom" in capfd.readouterr().err  # their traceback
    if name == "data":
        assert found["model"].status == "ok"  # the rest is still looked at
        assert "prompts" not in found


def test_prompts_that_are_too_long(folder: Path) -> None:
    assert look(*TINY)["prompts"].says.startswith("of 5 rows: 14 tokens on average, at most 14 of 488")
    found = look(*TINY, "data.max_prompt_tokens=13", "data.overlong=truncate_left")
    assert (found["prompts"].status, "0 too long and dropped, 5 cut" in found["prompts"].says) == ("warning", True)


def test_two_bos_and_no_end(folder: Path) -> None:
    """A model folder whose template writes the BOS twice; one whose tokenizer has no end token."""
    loaded = tiny_model().load()
    loaded.tokenizer.bos_token = "<|system|>"
    loaded.tokenizer.chat_template = "<|system|><|system|>{{ messages[0]['content'] }}"
    loaded.module.save_pretrained("twice")
    loaded.tokenizer.save_pretrained("twice")
    model = ["model=hf", "model.path=twice", *TINY[1:]]
    found = look(*model, "data.as_chat=true")
    assert (found["prompts"].status, "two BOS" in found["prompts"].says) == ("trouble", True)
    assert look(*model)["prompts"].status == "ok"
    loaded.tokenizer.eos_token = None
    loaded.module.generation_config.eos_token_id = None
    loaded.module.config.eos_token_id = None
    loaded.module.save_pretrained("endless")
    loaded.tokenizer.save_pretrained("endless")
    assert "no token ends a completion" in look("model=hf", "model.path=endless", *TINY[1:])["tokens"].says


def test_no_weights_are_read(folder: Path) -> None:
    """The file that would hold them is empty."""
    loaded = tiny_model().load()
    loaded.module.save_pretrained("model")
    loaded.tokenizer.save_pretrained("model")
    count = sum(parameter.numel() for parameter in loaded.module.parameters())
    (folder / "model/model.safetensors").write_bytes(b"")
    found = look("model=hf", "model.path=model", *TINY[1:])
    assert f"{count / 1e6:.2g}M parameters, a context of 256 tokens" in found["model"].says
    checkpoint = re.match(r"a checkpoint takes ([\d.]+) MB", found["checkpoints"].says)
    assert checkpoint is not None, found["checkpoints"]
    assert float(checkpoint[1]) == pytest.approx(count * 12e-6, abs=0.1)
    assert found["memory of the run"].status == "ok", found["memory of the run"]


def test_a_model_of_ones_own_is_loaded_whole(folder: Path) -> None:
    (folder / "models").mkdir()
    (folder / "my_model.py").write_text(
        "from dataclasses import dataclass\nfrom tests.conftest import tiny_model\n"
        "@dataclass(frozen=True, kw_only=True)\nclass Mine:\n    def load(self):\n        return tiny_model().load()\n"
    )
    sys.path.append(str(folder))
    found = look(*TINY[1:], "model._target_=my_model.Mine", "~model.hub_id", "~model.package")
    assert found["model"].status == "ok", found["model"]
    assert found["reward"].status == "ok"


def test_what_fits_together_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    for module in ("pggrpo_cli.together", "pggrpo_cli.planning.run_plan"):
        monkeypatch.setattr(f"{module}.check_together", lambda *given: calls.append(len(given)))
    assert look(*TINY)["memory of the run"].status in ("ok", "warning")
    assert calls == [4]


def test_room(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_plan, "available_memory", lambda: 1000)
    usage = run_plan.shutil.disk_usage(folder)
    for free, status in ((10, "trouble"), (600_000, "warning"), (10**9, "ok")):
        monkeypatch.setattr(run_plan.shutil, "disk_usage", lambda path, free=free: usage._replace(free=free))
        found = look(*TINY)
        assert found["checkpoints"].status == status, found["checkpoints"]
    assert found["memory of the run"].status == "warning"


def test_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [
        "torch>=2.6", "absent>=1", "numpy>=99", "jsonschema>=4; extra == 'json'", "lacking; extra == 'maths'",
        "pytest>=99; extra == 'dev'",
    ]  # fmt: skip
    monkeypatch.setattr(machine_findings, "requires", lambda name: wanted)
    found = {one.name: one for one in machine_findings._packages()}
    assert set(found) == {"packages", "absent", "numpy", "lacking"}
    assert (found["absent"].status, found["absent"].advice) == ("trouble", "pip install 'absent>=1'")
    assert (found["numpy"].status, found["numpy"].advice) == ("trouble", "pip install 'numpy>=99'")
    assert (found["lacking"].status, found["lacking"].advice) == ("warning", "pip install 'pggrpo[maths]'")
    assert f"torch {torch.__version__}" in found["packages"].says

    def nowhere(name: str) -> list[str]:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(machine_findings, "requires", nowhere)
    assert [one.status for one in machine_findings._packages()] == ["warning"]


def test_cores_and_memory_of_a_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_findings, "CGROUP", tmp_path)
    free = machine_findings.available_memory()
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("2000\n")
    assert machine_findings.cores() == 1
    assert machine_findings.available_memory() == 3000
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert machine_findings.cores() == len(os.sched_getaffinity(0))
    assert abs(machine_findings.available_memory() - free) < 5e9
    monkeypatch.setenv("OMP_NUM_THREADS", "999")
    assert machine_findings._cores().status == "warning"


def test_the_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that works, one that does not, and none."""
    assert machine_findings._sandbox().status == "ok"
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho no namespaces for you >&2; exit 1\n")
    broken.chmod(0o755)
    for path, said in ((str(broken), "no namespaces for you"), (None, "pip install 'pggrpo[sandbox]'")):
        monkeypatch.setattr(bwrap, "find", lambda path=path: path)
        found = machine_findings._sandbox()
        assert (found.status, said in found.says) == ("warning", True), found


def test_marks_for_a_terminal_that_knows_ascii_alone(folder: Path) -> None:
    code = "from pggrpo_cli.command.doctor import _print; from pggrpo_cli.findings import trouble; _print(trouble('β', 'x', 'y'))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment(), "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        timeout=60,
    )
    assert done.stdout == b"x ?: x\n  ? y\n"
