"""`pggrpo plan`: what it says of a run before it, against what such a run takes and writes."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pggrpo_cli.cli import main
from pggrpo_cli.config import TrainConfig
from pggrpo_cli.interruption import Abandoned
from pggrpo_cli.planning import run_plan
from pggrpo_cli.planning.probe import Probed, extrapolated
from pggrpo_cli.planning.run_counts import Lengths, run_counts
from tests.command.test_doctor import in_terminal
from tests.command_line import run

pytestmark = pytest.mark.usefixtures("folder")
TINY = ["model=tiny", "data=jsonl", "data.path=q.jsonl", "data.eval_size=8", "data.as_chat=true", "logger=[]"]
WITHIN = 0.2
"""How far the estimated peak may be from the measured one."""
APART = 3.0
"""Factor between a probed and a measured step: they are timed one after the other, with other tests beside each."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    rows = [{"prompt": f"What is {n} + {n}?", "answer": str(2 * n)} for n in range(40)]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def planned(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    code = main(["plan", "--json", *words])
    return code, json.loads(capsys.readouterr().out)


def test_as_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = planned(capsys, *TINY, "trainer.max_steps=10", "advantage=group_normalized")
    assert (code, found["ok"], found["time"]) == (0, True, None)
    assert found["counts"]["steps"] == 10
    assert found["counts"]["rows"] == 32
    assert found["counts"]["evaluations"] == [0, 8, 10]
    assert found["model"]["layers"] == 2
    assert found["memory"]["peak"] == sum(found["memory"]["phases"][found["memory"]["peak_phase"]].values())
    assert set(found["memory"]["phases"]) == {"load", "rollout", "update", "checkpoint", "evaluation"}
    assert found["disk"]["place"].startswith("outputs/")
    assert sum("β = 0.1" in note for note in found["notes"]) == 1
    assert sum("was published with advantage=group_mean" in note for note in found["notes"]) == 1
    assert sorted(path.name for path in folder.iterdir()) == ["q.jsonl"]  # nothing is written


def test_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *TINY]) == 0
    out, err = capsys.readouterr()
    assert "\x1b" not in out
    assert err == ""
    for words in ("8 prompts × 8 completions = 64", "2 layers, width 32", "✓ memory: about", "at steps 8, 16, 24"):
        assert words in out, out
    assert all(len(line) <= 100 and line == line.rstrip() for line in out.splitlines())


@pytest.mark.slow
def test_in_a_terminal_of_forty_columns(folder: Path) -> None:
    code, text = in_terminal(["-m", "pggrpo_cli", "plan", *TINY], folder, {"NO_COLOR": "1"})
    assert code == 0, text
    assert all(len(line) <= 40 for line in text.splitlines()), text
    assert "β = 0.1" in " ".join(text.split())


def test_what_cannot_fit_ends_with_2(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_plan, "total_memory", lambda: 10**8)
    monkeypatch.setattr(run_plan, "available_memory", lambda: 0)
    code, found = planned(capsys, *TINY)
    memory = found["findings"][0]
    assert (code, found["ok"], memory["name"], memory["status"]) == (2, False, "memory", "trouble")
    monkeypatch.setattr(run_plan, "total_memory", lambda: 10**11)
    monkeypatch.setattr(run_plan, "resident_bytes", lambda: 1)
    code, found = planned(capsys, *TINY)
    assert (code, found["findings"][0]["status"]) == (0, "warning")


def test_the_disk(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    usage = run_plan.shutil.disk_usage(folder)
    code, found = planned(capsys, *TINY)
    checkpoint = found["disk"]["checkpoint"]
    for free, status in ((checkpoint - 1, "trouble"), (checkpoint + 1, "warning"), (10**9, "ok")):
        monkeypatch.setattr(run_plan.shutil, "disk_usage", lambda path, free=free: usage._replace(free=free))
        code, found = planned(capsys, *TINY)
        assert (found["findings"][1]["status"], code) == (status, 2 if status == "trouble" else 0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trainer.max_step=3"], "Did you mean trainer.max_steps?"),
        (["--probes"], "Did you mean --probe?"),
        ([*TINY[:2], "data.path=absent.jsonl"], "`data.path`: absent.jsonl does not exist"),
        ([*TINY, "sampler.max_new_tokens=600"], "`sampler.max_new_tokens`: 600 leaves no room for a prompt"),
        ([*TINY, "sampler.group_size=1"], "`sampler.group_size`"),
        (["model=hf", "model.path=./absent", *TINY[1:]], "`model.path`"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_errors_are_those_of_the_run(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.count("\n") == 1


def test_prompts_that_are_dropped_are_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, found = planned(capsys, *TINY, "data.max_prompt_tokens=17")
    assert found["counts"]["rows"] < 32
    assert any("overlong prompts dropped" in note for note in found["notes"])


@pytest.mark.parametrize(("overlong", "fate"), [("drop", "dropped"), ("truncate_left", "truncated")])
def test_of_a_sample_the_note_says_what_was_looked_at(
    overlong: str, fate: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """16 of 32 rows: what is said of all of them is in proportion, what is counted is of those."""
    words = [*TINY, "data.max_prompt_tokens=17", f"data.overlong={overlong}"]
    monkeypatch.setattr(run_plan, "TOKENISED", 16)
    _, found = planned(capsys, *words)
    (note,) = [one for one in found["notes"] if "overlong" in one]
    count = int(re.fullmatch(rf"data: of 16 rows looked at (\d+) are overlong, to be {fate}", note)[1])  # type: ignore[index]
    assert 0 < count < 16
    assert found["counts"]["rows"] == (32 if overlong == "truncate_left" else 2 * (16 - count))


def probed(**changes: Any) -> Probed:
    values = {"prompts": 2, "rollout": 2.0, "score": 0.1, "update": 3.0, "optimizer": 1.0, "mean_length": 12.0}
    return Probed(**(values | {"longest": 24.0, "loading": 5.0} | changes))


def test_extrapolation_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    from pggrpo_cli.check import checked
    from pggrpo_cli.composing import compose

    config = checked(compose("train", ["model=tiny"]))
    lengths = Lengths.of([(60, []), (40, [])], prompts=100, held_out=64)
    counts = run_counts(config, lengths)  # 8 prompts, four times the probe's; 24 steps, 4 evaluations, 3 checkpoints
    found = extrapolated(probed(), counts, 300_000_000)
    assert found.step_low == pytest.approx(2.0 + 0.4 + 2.0 * 4 + 1.0)
    assert found.step == pytest.approx(found.step_low + 3.0)
    assert found.step_high == pytest.approx(
        2.0 * 4 + 0.4 + 2.0 * 4 * 2 + 1.0
    )  # twice as long as those that were probed
    assert found.evaluation == pytest.approx(2.0 * (1 + 64 / 16) / 2)
    assert found.checkpoint == pytest.approx(1.0)
    assert found.run == pytest.approx(24 * found.step + 5.0 + 4 * found.evaluation + 3 * found.checkpoint)
    whole = extrapolated(probed(prompts=8, mean_length=24.0), counts, 0)
    assert whole.step == whole.step_low == whole.step_high == pytest.approx(5.1)
    assert extrapolated(probed(), replace(counts, evaluations=()), 0).evaluation == 0
    assert "evaluation" not in " ".join(extrapolated(probed(), replace(counts, evaluations=()), 0).rows())


def test_an_evaluation_with_more_room_takes_longer() -> None:
    from pggrpo_cli.check import checked
    from pggrpo_cli.composing import compose

    config = checked(compose("train", ["model=tiny", "evaluation.max_new_tokens=96"]))
    counts = run_counts(config, Lengths.of([(60, [])], prompts=100, held_out=64))
    cut = extrapolated(probed(), counts, 0).evaluation  # the longest had 24 tokens, as many as it may have
    assert cut == pytest.approx(4 * 2.0 * (1 + 64 / 16) / 2)
    ended = extrapolated(probed(longest=20.0), counts, 0).evaluation
    assert ended == pytest.approx(2.0 * (1 + 64 / 16) / 2)
    shorter = replace(counts, evaluation_tokens=12)
    assert extrapolated(probed(), shorter, 0).evaluation == pytest.approx(cut / 8)


STEP = {"time/rollout": 1.0, "time/score": 0.1, "time/update": 1.0, "completions/mean_length": 5.0}


def probing(monkeypatch: pytest.MonkeyPatch, one_step: Callable[[int], Any]) -> tuple[list[Path], SimpleNamespace]:
    """Instead of a run that loads a model; (its folder, the trainer)."""
    folders: list[Path] = []
    trainer = SimpleNamespace(one_step=one_step, settings=None)

    @contextmanager
    def opened(config: TrainConfig, run_dir: Path, *others: Any, saves: bool) -> Iterator[SimpleNamespace]:
        folders.append(run_dir)
        trainer.settings = config.trainer
        yield trainer

    monkeypatch.setattr("pggrpo_cli.planning.probe.opened_run", opened)
    return folders, trainer


def test_a_server_that_goes_away_ends_the_probe_in_words(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(step: int) -> None:
        raise Abandoned("`reward.http.url`: nothing answers.")

    probing(monkeypatch, gone)
    assert main(["plan", "--probe", *TINY]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", "error: `reward.http.url`: nothing answers.\n")


def test_a_probe_computes_groups_without_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = []
    _, trainer = probing(
        monkeypatch, lambda step: settings.append(trainer.settings) or STEP | {"completions/max_length": 9.0}
    )
    assert main(["plan", "--probe", *TINY]) == 0
    assert [one.skip_zero_advantages for one in settings] == [False, False]


def test_sigterm_leaves_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def terminated(step: int) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the signal did not end the probe")

    folders, _ = probing(monkeypatch, terminated)
    former = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with pytest.raises(SystemExit) as caught:
            main(["plan", "--probe", *TINY])
    finally:
        signal.signal(signal.SIGTERM, former)
    assert caught.value.code == 143
    assert not folders[0].exists()


SWEEP = ["-m", *TINY, "loss=grpo,pg_grpo", "seed=1,2,3", "trainer.max_steps=10", "sweep.jobs=2"]


def test_a_sweep_in_a_pipe(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pggrpo_cli.sweep.shares.visible_gpus", lambda: ())
    assert main(["plan", *SWEEP]) == 0
    out, err = capsys.readouterr()
    assert ("\x1b" not in out, err) == (True, "")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[0].startswith("sweep of 6 jobs in outputs/sweeps/")
    assert "loss grpo, pg_grpo" in lines
    assert "seed 1, 2, 3" in lines
    assert any(line.startswith("at a time 2, ") for line in lines)
    assert [line.split()[0] for line in lines if line.endswith(("loss=grpo", "loss=pg_grpo"))] == ["3", "3"]
    assert "steps 60: 6 jobs × 10" in lines
    assert "completions 3,840" in lines
    assert any(line.startswith("✓ memory: 2 jobs at a time take about") for line in lines)
    assert lines[-1].startswith("✓ disk: a checkpoint of each job takes")
    assert all(len(line) <= 100 and line == line.rstrip() for line in out.splitlines())
    assert sorted(path.name for path in folder.iterdir()) == ["q.jsonl"]


def test_a_sweep_as_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = planned(capsys, *SWEEP)
    assert (code, found["ok"], found["jobs"], found["steps"], found["updates"]) == (0, True, 6, 60, 60)
    assert found["swept"] == {"loss": ["grpo", "pg_grpo"], "seed": ["1", "2", "3"]}
    assert [(kind["jobs"], kind["words"]) for kind in found["kinds"]] == [
        ([0, 1, 2], "loss=grpo"),
        ([3, 4, 5], "loss=pg_grpo"),
    ]
    peaks = [kind["plan"]["memory"]["peak"] for kind in found["kinds"]]
    (memory,) = found["memory"]
    assert memory["needed"] == 2 * max(peaks)
    _, alone = planned(capsys, *TINY, "loss=grpo", "trainer.max_steps=10")
    assert found["kinds"][0]["plan"]["counts"] == alone["counts"]


def test_a_sweep_that_cannot_fit_ends_with_2(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One job fits and two at a time do not."""
    monkeypatch.setattr("pggrpo_cli.sweep.shares.visible_gpus", lambda: ())
    peak = planned(capsys, *SWEEP)[1]["memory"][0]["needed"] // 2
    monkeypatch.setattr(run_plan, "total_memory", lambda: 3 * peak // 2)
    assert main(["plan", *SWEEP]) == 2
    out = " ".join(capsys.readouterr().out.split())
    assert "✗ memory: 2 jobs at a time take" in out
    assert "→ sweep.jobs=1, or" in out
    assert main(["plan", *SWEEP, "sweep.jobs=1"]) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-m", *TINY, "loss.beta=0.1,-1"], "This is job 1 of the sweep (model=tiny"),
        (["-m", *TINY, "sampler.max_new_tokens=8,600"], "`sampler.max_new_tokens`: 600 leaves no room"),
        (["-m", *TINY, "trainer.max_step=3,4"], "Did you mean trainer.max_steps?"),
        (["-m", *TINY, "hydra.sweep.subdir=x", "seed=1,2"], "`hydra.sweep.subdir`: jobs 0 and 1 would share"),
        (["-m", "--probe", *TINY, "seed=1,2"], "--probe runs one job"),
        ([*TINY, "seed=1,2"], "several values (1,2) are a sweep, and this is one run"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_errors_of_a_sweep(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_a_sweep_in_a_terminal_of_forty_columns(folder: Path) -> None:
    code, text = in_terminal(["-m", "pggrpo_cli", "plan", *SWEEP], folder, {"NO_COLOR": "1"})
    assert code == 0, text
    assert all(len(line) <= 40 for line in text.splitlines()), text
    assert "loss=pg_grpo" in text


def peak_gb(run_dir: Path) -> float:
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return max(line.get("memory/peak_gb", 0.0) for line in lines)


def trained(folder: Path, *words: str) -> Path:
    done = run(["train", *words, "hydra.run.dir=run"], folder)
    assert done.returncode == 0, done.stderr
    return folder / "run"


def planned_apart(folder: Path, *words: str) -> dict[str, Any]:
    """In a process of its own: what this one holds must not count."""
    done = run(["plan", "--json", *words], folder)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.slow
def test_memory_disk_and_time_of_the_tiny_model(folder: Path) -> None:
    words = [*TINY, "trainer.max_steps=6", "checkpoint.every=3", "evaluation.every=null"]
    found = planned_apart(folder, *words, "--probe")
    run_dir = trained(folder, *words)
    assert found["memory"]["peak"] / 1e9 == pytest.approx(peak_gb(run_dir), rel=WITHIN)
    sizes = [size_of(path) for path in sorted((run_dir / "checkpoints").glob("step-*"))]
    assert len(sizes) == found["counts"]["kept"] == 2
    assert found["disk"]["checkpoint"] == pytest.approx(max(sizes), rel=0.05)
    written = (run_dir / "metrics.jsonl").stat().st_size + (run_dir / "samples.jsonl").stat().st_size
    assert written <= found["disk"]["lines"] < 2 * written
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    real = sorted(line["step_time"] for line in lines if line["step"] > 1)[2]
    assert real / APART < found["time"]["step"] < real * APART
    assert sorted(path.name for path in folder.iterdir()) == ["q.jsonl", "run"]


@pytest.mark.slow
def test_memory_and_time_of_a_real_model(folder: Path) -> None:
    """SmolLM2-135M, two steps of two prompts, four completions each; the data say nothing of the length, so the peak of a
    run whose completions end early is below the estimate."""
    words = [*TINY[1:], "trainer.max_steps=2", "trainer.prompts_per_step=2", "sampler.group_size=4"]
    words += [
        "sampler.max_new_tokens=32",
        "evaluation.every=null",
        "checkpoint.keep_best=null",
        "self_check.enabled=false",
        "trainer.skip_zero_advantages=false",  # as the probe has it, whatever the rewards are
    ]
    found = planned_apart(folder, *words, "--probe")
    run_dir = trained(folder, *words)
    assert found["memory"]["peak"] / 1e9 == pytest.approx(peak_gb(run_dir), rel=WITHIN)
    (checkpoint,) = (run_dir / "checkpoints").glob("step-*")
    assert found["disk"]["checkpoint"] == pytest.approx(size_of(checkpoint), rel=0.02)
    last = json.loads((run_dir / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["step_time"] / APART < found["time"]["step"] < last["step_time"] * APART


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
