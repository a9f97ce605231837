"""Memory that runs out: the same step in smaller pieces, with the same gradient and the same draws."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pggrpo_cli.batching import Minibatch, split_into_minibatches
from pggrpo_cli.errors import OutOfMemory
from pggrpo_cli.metrics import values
from pggrpo_cli.out_of_memory import is_out_of_memory
from pggrpo_cli.policy import Policy
from pggrpo_cli.sampler.hf_generate import HfGenerate, OpenHfGenerate
from pggrpo_cli.sampler.native import Native
from pggrpo_cli.types import DrawKey, RunContext
from tests.conftest import random_prompts, tiny_policy
from tests.test_batching import group
from tests.test_update import LOSSES, minibatches, updater

pytestmark = pytest.mark.fault("T18")

CPU_WORDS = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried …"


def test_what_running_out_of_memory_looks_like() -> None:
    for error in (
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError(CPU_WORDS),
        RuntimeError("std::bad_alloc"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ):
        assert is_out_of_memory(error)
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60)
    assert is_out_of_memory(caught.value)
    for other in (RuntimeError("size mismatch"), ValueError("not enough values"), KeyError("x")):
        assert not is_out_of_memory(other)


def scarce(policy: Policy, monkeypatch: pytest.MonkeyPatch, limit: int, *, gradient_only: bool = False) -> list[int]:
    """A forward of more than `limit` tokens fails as a CPU's does; the sizes that did not."""
    sizes: list[int] = []
    score = policy.score

    def limited(packed: Any, *arguments: Any, **options: Any) -> Any:
        size = packed.input_ids.shape[0]
        if size > limit and (torch.is_grad_enabled() or not gradient_only):
            raise RuntimeError(CPU_WORDS)
        sizes.append(size)
        return score(packed, *arguments, **options)

    monkeypatch.setattr(policy, "score", limited)
    return sizes


def trained(name: str, budget: int, limit: int | None, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Any:
    loss = LOSSES[name]()
    policy = tiny_policy()
    working = updater(policy, loss, passes=2, lr=1e-3)
    sizes = [] if limit is None else scarce(policy, monkeypatch, limit, **options)
    metrics = values(working.update(minibatches(loss, budget, count=2)))
    weights = torch.cat([parameter.detach().flatten() for parameter in policy.module.parameters()])
    return working, metrics, weights, sizes


@pytest.mark.parametrize("gradient_only", [True, False], ids=["in the backward alone", "in every forward"])
@pytest.mark.parametrize("name", LOSSES)
def test_the_update_goes_on_in_smaller_micro_batches(
    name: str, gradient_only: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, expected, moved, _ = trained(name, 10_000, None, monkeypatch)
    working, metrics, weights, sizes = trained(name, 10_000, 40, monkeypatch, gradient_only=gradient_only)
    assert torch.allclose(weights, moved, atol=2e-6)
    assert metrics.pop("memory/out_of_memory") == 1
    for key in expected.keys() - {"time/reference", "time/optimizer"}:
        assert metrics[key] == pytest.approx(expected[key], rel=1e-3, abs=1e-5), key
    assert "trainer.micro_batch_tokens=" in capsys.readouterr().err
    budget = working.state()["micro_batch_tokens"]
    assert max(sizes[-4:]) <= 40
    # and the next step does not try the old size again, nor does a run that goes on
    again = updater(tiny_policy(), LOSSES[name]())
    again.load(working.state())
    before = len(sizes)
    working.update(minibatches(LOSSES[name](), 10_000))
    assert max(sizes[before:]) <= 40
    assert again.state()["micro_batch_tokens"] == budget
    assert "memory/out_of_memory" not in working.update(minibatches(LOSSES[name](), 10_000))


def test_what_cannot_be_split_further_says_what_would_help(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OutOfMemory, match=r"`trainer.micro_batch_tokens`.*cannot be split.*gradient_checkpointing"):
        trained("pg_grpo", 10_000, 2, monkeypatch)


def test_other_errors_are_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tiny_policy()
    calls: list[Minibatch] = []

    def broken(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments[0])
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(policy, "score", broken)
    with pytest.raises(RuntimeError, match="do not match"):
        updater(policy, LOSSES["dapo"]()).update(minibatches(LOSSES["dapo"](), 10_000))
    assert len(calls) == 1


def test_the_rollout_goes_on_with_fewer_rows(
    context: RunContext, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import pggrpo_cli.engine.decoding as decoding

    policy = tiny_policy()
    sampler = Native(
        group_size=3,
        max_new_tokens=7,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        min_p=0.0,
        stop=[],
        max_rows=64,
        decoding="auto",
    )
    prompts, draws = random_prompts([4, 9, 6, 5]), DrawKey(seed=1, purpose="test", step=3)

    def completions(working: Any) -> list[list[int]]:
        return [
            row.completion_ids.tolist() for group in working.sample(policy, prompts, draws) for row in group.rollouts
        ]

    with sampler.open(context) as working:
        expected = completions(working)
    feed = decoding._Batch.feed

    def limited(batch: Any) -> None:
        if len(batch.live) > 6:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        feed(batch)

    monkeypatch.setattr(decoding._Batch, "feed", limited)
    with sampler.open(context) as working:
        assert completions(working) == expected
        assert "sampler.max_rows=6" in capsys.readouterr().err
        assert working.state()["max_rows"] == 6
        assert completions(working) == expected
        assert capsys.readouterr().err == ""
        state = working.state()
    with sampler.open(context) as working:
        working.load(state)
        assert completions(working) == expected
        assert capsys.readouterr().err == ""
    monkeypatch.setattr(decoding._Batch, "feed", lambda batch: limited(batch) or (_ for _ in ()).throw(MemoryError()))
    with sampler.open(context) as working, pytest.raises(OutOfMemory, match="single group of 3"):
        completions(working)


def test_pieces_of_uneven_size_are_split_on_while_the_largest_shrinks(monkeypatch: pytest.MonkeyPatch) -> None:
    """[100, 10] tokens become [60, 50]: as many as before, and smaller."""
    rows = [group(index, [length], prompt=5) for index, length in enumerate((55, 35, 5))]
    (mini,) = split_into_minibatches(rows, 1, 100, torch.Generator())
    assert [micro.packed.input_ids.shape[0] + len(micro.rows) for micro in mini.micro_batches] == [100, 10]
    policy = tiny_policy()
    sizes = scarce(policy, monkeypatch, 70)
    metrics = values(updater(policy, LOSSES["dapo"]()).update([mini]))
    assert metrics["memory/out_of_memory"] == 1
    assert max(sizes) <= 60


def test_memory_that_runs_out_in_the_optimizer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some weights have moved by then: there is no second try, but words."""
    policy = tiny_policy()
    working = updater(policy, LOSSES["dapo"]())

    def full() -> None:
        raise RuntimeError(CPU_WORDS)

    monkeypatch.setattr(working.optimizer, "step", full)
    with pytest.raises(OutOfMemory, match="`optimizer`: memory ran out in its step"):
        working.update(minibatches(LOSSES["dapo"](), 10_000))


def test_generate_goes_on_with_fewer_completions_at_a_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    policy, prompts = tiny_policy(), random_prompts((4, 7))
    sampler = HfGenerate(group_size=6, max_new_tokens=5, temperature=1.0, top_p=1.0, top_k=0, min_p=0.0, stop=[])
    draws = DrawKey(seed=1, purpose="rollout", step=1)
    expected = OpenHfGenerate(sampler).sample(policy, prompts, draws)
    generate, sizes = policy.module.generate, []

    def limited(**options: Any) -> Any:
        rows = options["input_ids"].shape[0]
        if rows > limit:
            raise MemoryError
        sizes.append(rows)
        return generate(**options)

    monkeypatch.setattr(policy.module, "generate", limited)
    limit = 2
    found = OpenHfGenerate(sampler).sample(policy, prompts, draws)
    assert sizes == [2] * 6
    for one, other in zip(found, expected, strict=True):
        assert [r.completion_ids.tolist() for r in one.rollouts] == [r.completion_ids.tolist() for r in other.rollouts]
    assert "with 2 completions at a time" in capsys.readouterr().err
    limit = 0
    with pytest.raises(OutOfMemory, match="a single completion"):
        OpenHfGenerate(sampler).sample(policy, prompts, draws)
