"""4 steps = evaluation, 1 step, 1 step and 2 steps, each resumed, bit for bit."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir

from pggrpo_cli.assemble import find_checkpoint, run_training
from pggrpo_cli.checkpoint import Checkpoint, load_checkpoint
from pggrpo_cli.config import TrainConfig, conf_dir, register, typed
from pggrpo_cli.errors import StoppedEarly
from pggrpo_cli.interruption import Interruption

SHARED = [
    "debug=fast",
    "logger=[]",
    "data.eval_size=8",
    "trainer.prompts_per_step=4",
    "sampler.group_size=4",
    "evaluation.every=2",
    "evaluation.num_prompts=3",
    "evaluation.max_new_tokens=6",
    "checkpoint.every=2",
    "checkpoint.keep_last=9",
    "optimizer.lr=1e-2",
    "reward=[length,exact_answer]",
]
SEVERAL = ["trainer.passes_per_rollout=2", "trainer.minibatches=2", "trainer.micro_batch_tokens=300"]
CASES: dict[str, list[str]] = {
    "pg_grpo": ["loss=pg_grpo", "sampler.max_new_tokens=8"],
    "pg_grpo several updates": ["loss=pg_grpo", "sampler.max_new_tokens=8", *SEVERAL],
    "grpo several updates": ["loss=grpo", "sampler.max_new_tokens=8", "loss.kl_coef=0", *SEVERAL],
    "online dpo with muon": ["loss=dpo", "sampler.max_new_tokens=8", "optimizer=muon"],
    "filtered": ["loss=dapo", "sampler.max_new_tokens=4", "trainer.filter_constant_groups=true"],
    "sgd with cosine": ["optimizer=sgd", "optimizer.momentum=0.9", "scheduler=cosine", "sampler.max_new_tokens=8"],
}
MUTATED = [
    "loss=pg_grpo",
    "sampler.max_new_tokens=8",
    "scheduler=linear",
    "checkpoint.every=1",
    "checkpoint.keep_best=reward:max",
]
Forget = Callable[[Checkpoint], Checkpoint]
TIMES = ("time/", "step_time", "tokens_per_second", "memory/")


def config(overrides: list[str], steps: int) -> TrainConfig:
    register()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        words = [*SHARED, *overrides, f"trainer.max_steps={steps}"]
        gone = {word.removeprefix("~") for word in words if word.startswith("~")}
        return typed(compose("train", overrides=[w for w in words if w.lstrip("~").partition("=")[0] not in gone]))


def offline(folder: Path) -> list[str]:
    file = folder / "pairs.jsonl"
    rows = [
        {
            "prompt": [{"role": "user", "content": f"{a} + 1"}],
            "chosen": [{"role": "assistant", "content": f"{a + 1}"}],
            "rejected": [{"role": "assistant", "content": f"no {a}"}],
            "answer": str(a + 1),
        }
        for a in range(20)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    names = ["data=preference_jsonl", f"data.path={file}"]
    return [*names, "sampler.group_size=2", "evaluation.every=2"]


def fingerprint(run: Path) -> dict[str, Any]:
    """Everything that must be equal: hashes of weights, optimizer and states, and the metrics without times."""
    found: dict[str, Any] = {}
    for name in ("model.safetensors", "optimizer.safetensors", "state.safetensors"):
        found[name] = hashlib.sha256((run / "checkpoints" / "step-000004" / name).read_bytes()).hexdigest()
    progress = json.loads((run / "checkpoints" / "step-000004" / "state.json").read_text())["progress"]
    found["progress"] = {key: value for key, value in progress.items() if key != "seconds"}
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found["metrics"] = [{key: value for key, value in line.items() if not key.startswith(TIMES)} for line in lines]
    found["samples"] = (run / "samples.jsonl").read_text()
    return found


def compare(tmp_path: Path, overrides: list[str]) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    for folder in (whole, halves):
        folder.mkdir()
    run_training(config(overrides, 4), whole, None, Interruption())
    # A signal comes in the evaluation before the first step; then two times one step is all there is time for.
    signalled, hurried = Interruption(), config([*overrides, "trainer.max_minutes=1e-9"], 4)
    signalled.signal = signal.SIGINT
    for cfg, interruption, checkpoint in (
        (config(overrides, 4), signalled, None),
        (hurried, Interruption(), "step-000000"),
        (hurried, Interruption(), "step-000001"),
    ):
        with pytest.raises(StoppedEarly, match="pggrpo resume"):
            run_training(cfg, halves, None if checkpoint is None else find_checkpoint(halves), interruption)
        assert checkpoint is None or (halves / "checkpoints" / checkpoint).exists()
    assert not (halves / "finished.json").exists()
    run_training(config(overrides, 4), halves, find_checkpoint(halves), Interruption())
    assert (halves / "finished.json").exists()
    expected, found = fingerprint(whole), fingerprint(halves)
    assert [line["step"] for line in expected["metrics"]] == [0, 1, 2, 3, 4]
    # a run that stops early evaluates no more often than its schedule says
    assert found["metrics"] == expected["metrics"]
    assert found == expected


@pytest.mark.parametrize("case", CASES)
@pytest.mark.fault("T1")
def test_resume_is_exact(case: str, tmp_path: Path) -> None:
    compare(tmp_path, CASES[case])


@pytest.mark.parametrize("loss", ["dpo", "ipo", "pg_grpo", "sft"])
@pytest.mark.fault("T1")
def test_resume_is_exact_offline(loss: str, tmp_path: Path) -> None:
    compare(tmp_path, [f"loss={loss}", *offline(tmp_path), *SEVERAL])


@pytest.mark.fault("T1")
def test_resume_is_exact_with_rows_that_are_streamed_and_filtered(tmp_path: Path) -> None:
    """Rows of every length, of which many are too long: others take their places."""
    file = tmp_path / "sums.jsonl"
    rows = [{"prompt": "1" * (a % 9 + 1) + f" + {a}", "answer": str(a), "level": a % 3, "id": a} for a in range(60)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [*CASES["pg_grpo"], "data=jsonl", f"data.path={file}", "data.streaming=true", "+data.where.level=[0,1]"]
    compare(tmp_path, [*words, "data.max_prompt_tokens=9"])
    for folder, more in (("streamed", []), ("eager", ["data.streaming=false"])):  # of rows that all fit
        (tmp_path / folder).mkdir()
        run_training(config([*words, *more], 4), tmp_path / folder, None, Interruption())
    one, other = fingerprint(tmp_path / "streamed"), fingerprint(tmp_path / "eager")
    assert one["progress"].pop("origin") != other["progress"].pop("origin")
    assert one["metrics"] == other["metrics"]
    assert one["model.safetensors"] == other["model.safetensors"]


def mixed(folder: Path) -> list[str]:
    """Pairs of a file and sums to be sampled in every step, the sums chosen by what was measured."""
    offline(folder)
    return [
        "data=mixture",
        "~data.eval_size",
        "+data@data.sources.sums=chain_sum",
        "data.sources.sums.size=18",
        "data.sources.sums.eval_size=8",
        "+data@data.sources.pairs=jsonl",
        f"data.sources.pairs.path={folder / 'pairs.jsonl'}",
        "data.sources.pairs.eval_size=0",
        "sampler=mixed",
        "sampler.max_new_tokens=6",
        "reward=[length,preference]",
        "++reward.length.applies_to=[sums]",
        "order=curriculum",
        "order.solved_at=0.5",
        "order.prior_solved=0.1",
        "order.prior_failed=0.1",
        "loss.nll_coef=0.5",
        "trainer.importance_cap=2",
    ]


@pytest.mark.fault("T1")
def test_resume_is_exact_with_a_mixture_and_a_curriculum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [*mixed(tmp_path), *SEVERAL]
    compare(tmp_path, words)
    whole = tmp_path / "whole"
    state = load_checkpoint(whole / "checkpoints" / "step-000002").component_states["order"]
    assert {f"order.{key}" for key in state} == CURRICULUM
    last = json.loads((whole / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["sources/sums/prompts"] == last["sources/pairs/prompts"] == 2
    assert 0 < last["curriculum/measured_share"] <= 1
    assert last["nll"] > 0
    forgetful = tmp_path / "forgetful"
    shutil.copytree(whole / "checkpoints" / "step-000002", forgetful / "checkpoints" / "step-000002")
    monkeypatch.setattr(
        "pggrpo_cli.assemble.load_checkpoint", lambda path: forget_component("order")(load_checkpoint(path))
    )
    run_training(config(words, 4), forgetful, find_checkpoint(forgetful), Interruption())
    weights = [run / "checkpoints" / "step-000004" / "model.safetensors" for run in (whole, forgetful)]
    assert weights[0].read_bytes() != weights[1].read_bytes()


def test_what_is_compared_depends_on_the_seed_and_moves(tmp_path: Path) -> None:
    """The comparison above could not fail if nothing ever changed."""
    for seed in (1, 2):
        (tmp_path / str(seed)).mkdir()
        run_training(config([*CASES["pg_grpo"], f"seed={seed}"], 4), tmp_path / str(seed), None, Interruption())
    one, other = fingerprint(tmp_path / "1"), fingerprint(tmp_path / "2")
    assert all(one[key] != other[key] for key in ("model.safetensors", "optimizer.safetensors", "metrics", "samples"))
    assert one["metrics"][1]["reward_std"] > 0


def forget_component(name: str) -> Forget:
    return lambda checkpoint: replace(checkpoint, component_states={**checkpoint.component_states, name: {}})


def forget_progress(name: str, value: object) -> Forget:
    return lambda checkpoint: replace(checkpoint, progress={**checkpoint.progress, name: value})


def forget_optimizer(part: str) -> Forget:
    """A tensor of every parameter's state, as it is in a fresh optimizer."""

    def forget(checkpoint: Checkpoint) -> Checkpoint:
        tensors = {
            name: torch.zeros_like(tensor) if name.endswith(part) else tensor
            for name, tensor in checkpoint.optimizer_tensors.items()
        }
        assert any(name.endswith(part) for name in tensors)
        return replace(checkpoint, optimizer_tensors=tensors)

    return forget


def forget_scheduler(checkpoint: Checkpoint) -> Checkpoint:
    updater = {**checkpoint.component_states["updater"]}
    updater["scheduler"] = {**updater["scheduler"], "updates": 0}
    return replace(checkpoint, component_states={**checkpoint.component_states, "updater": updater})


def forget_key(component: str, key: str, value: object) -> Forget:
    def forget(checkpoint: Checkpoint) -> Checkpoint:
        states = checkpoint.component_states
        assert key in states[component]
        return replace(checkpoint, component_states={**states, component: {**states[component], key: value}})

    return forget


FORGETFUL: dict[str, Forget] = {
    "nothing": lambda checkpoint: checkpoint,
    "first moments": forget_optimizer("exp_avg"),
    "second moments": forget_optimizer("exp_avg_sq"),
    "the optimizer's steps": forget_optimizer("/step"),
    "the scheduler": forget_scheduler,
    "how long metrics.jsonl was": forget_key("recorder", "metrics", 0),
    "how long samples.jsonl was": forget_key("recorder", "samples", 0),
    "which prompts were consumed": forget_progress("prompts_consumed", 0),
    "how many tokens": forget_progress("num_tokens", 0),
    "which step": forget_progress("step", 1),
    "the best": forget_progress("best", {}),
    "the first evaluation": forget_progress("evaluated", False),
}


@pytest.fixture(scope="module")
def half_a_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """What the whole run leaves, and the directory of one that stopped after two steps."""
    whole, half = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("half")
    run_training(config(MUTATED, 4), whole, None, Interruption())
    for checkpoint in (None, "newest"):
        with pytest.raises(StoppedEarly):
            run_training(
                config([*MUTATED, "trainer.max_minutes=1e-9"], 4),
                half,
                None if checkpoint is None else find_checkpoint(half),
                Interruption(),
            )
    return fingerprint(whole), half


@pytest.mark.fault("T1")
@pytest.mark.parametrize("forgotten", [*FORGETFUL, "the weights"])
def test_a_checkpoint_that_forgets_anything_is_noticed(
    forgotten: str, half_a_run: tuple[dict[str, Any], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison notices each single item of a checkpoint: nothing in it is there for nothing."""
    expected, half = half_a_run
    run = tmp_path / "run"
    shutil.copytree(half, run)
    if forgotten == "the weights":
        monkeypatch.setattr("pggrpo_cli.saving.load_weights", lambda module, file: None)
    else:
        monkeypatch.setattr(
            "pggrpo_cli.assemble.load_checkpoint", lambda path: FORGETFUL[forgotten](load_checkpoint(path))
        )
    try:
        run_training(config(MUTATED, 4), run, find_checkpoint(run), Interruption())
        found = fingerprint(run)
    except KeyError:
        found = None
    assert (found == expected) == (forgotten == "nothing")


NOTICED_ELSEWHERE = {
    "progress.optimizer": "test_optimizer_state.py",
    "progress.origin": "test_origin.py",
    "progress.seconds": "of the display alone",
    "progress.unevaluated": "test_judged_runs.py",
    "progress.target_met": "test_killed.py::test_a_run_that_had_met_its_target",
    "updater.bad_in_a_row": "test_what_only_a_bad_run_has",
    "updater.micro_batch_tokens": "test_what_only_a_bad_run_has",
    "sampler.max_rows": "test_what_only_a_bad_run_has",
    "evaluation.max_rows": "test_what_only_a_bad_run_has",
    "sampler.decoding": "compiled/test_library.py::test_a_resume_elsewhere_is_told",
    "evaluation.decoding": "test_what_only_a_bad_run_has",
    "recorder.unwritten_metrics": "test_recorder.py",
    "reference.identity": "test_origin.py",
}
NOTICED_HERE = {
    "progress.step", "progress.prompts_consumed", "progress.num_tokens", "progress.best", "progress.evaluated",
    "recorder.metrics", "recorder.samples", "updater.scheduler",
}  # fmt: skip
CURRICULUM = {"order.identity", "order.indices", "order.tried", "order.solved"}
"""Noticed by test_resume_is_exact_with_a_mixture_and_a_curriculum and tests/order/test_curriculum.py."""
OFFLINE_REFERENCE = {"reference.temperature", "reference.keys", "reference.lengths", "reference.logprobs"}


def test_nothing_is_saved_that_no_test_would_miss(half_a_run: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    """A new key of a checkpoint fails here until a test notices when it is forgotten."""
    run_training(config(["loss=dpo", *offline(tmp_path)], 1), tmp_path, None, Interruption())
    saved: set[str] = set()
    for run in (half_a_run[1], tmp_path):
        checkpoint = load_checkpoint(find_checkpoint(run))
        saved |= {f"progress.{key}" for key in checkpoint.progress}
        saved |= {f"{name}.{key}" for name, state in checkpoint.component_states.items() for key in state}
    assert saved == NOTICED_HERE | NOTICED_ELSEWHERE.keys() | OFFLINE_REFERENCE


def test_what_only_a_bad_run_has(half_a_run: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    """How many updates in a row were bad, and what memory has allowed, are taken over from a checkpoint."""
    half = half_a_run[1]
    checkpoint = load_checkpoint(find_checkpoint(half))
    seen: dict[str, Any] = {}
    states = checkpoint.component_states
    states["updater"] |= {"bad_in_a_row": 2, "micro_batch_tokens": 77}
    states["sampler"]["max_rows"], states["evaluation"]["max_rows"] = 5, 6
    assert states["evaluation"]["decoding"]
    run = tmp_path / "run"
    shutil.copytree(half, run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pggrpo_cli.assemble.load_checkpoint", lambda path: checkpoint)
        patch.setattr("pggrpo_cli.trainer.Trainer.run", lambda trainer: seen.update(trainer=trainer) or {})
        run_training(config(MUTATED, 4), run, find_checkpoint(run), Interruption())
    trainer = seen["trainer"]
    assert trainer.updater.state() == states["updater"]
    assert not trainer.updater.going_well
    assert (trainer.sampler.state(), trainer.evaluation.sampler.state()) == (states["sampler"], states["evaluation"])
