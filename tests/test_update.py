"""One optimizer step is one optimizer step: whatever the micro-batches, the gradient is that of the full batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from pggrpo_cli.batching import Minibatch, TrainGroup, TrainRow, split_into_minibatches
from pggrpo_cli.errors import DivergedError
from pggrpo_cli.loss.dapo import Dapo
from pggrpo_cli.loss.dpo import Dpo
from pggrpo_cli.loss.dr_grpo import DrGrpo
from pggrpo_cli.loss.pg_grpo import PgGrpo
from pggrpo_cli.metrics import values
from pggrpo_cli.packing import pack
from pggrpo_cli.policy import Policy
from pggrpo_cli.reference import Reference, frozen_copy
from pggrpo_cli.types import Rollout
from pggrpo_cli.update import Updater, UpdateSettings
from tests.conftest import tiny_policy

SHARED: dict[str, Any] = {"kl_estimator": "k3", "kl_reduction": "token_mean"}
LOSSES: dict[str, Callable[[], Any]] = {
    "pg_grpo": lambda: PgGrpo(
        beta=0.5,
        length_normalized=False,
        clip_low=0.2,
        clip_high=0.2,
        ratio_max=None,
        gradient_scale="faithful",
        kl_coef=0.1,
        entropy_coef=0.01,
        nll_coef=0.2,
        **SHARED,
    ),
    "dapo": lambda: Dapo(
        clip_low=0.2, clip_high=0.28, ratio_max=None, kl_coef=0.0, entropy_coef=0.0, nll_coef=0.0, **SHARED
    ),
    "dpo": lambda: Dpo(beta=0.1, label_smoothing=0.1, length_normalized=False, reference_free=False, nll_coef=0.2),
}


def groups(seed: int = 0, pairs: bool = False) -> list[TrainGroup]:
    generator = torch.Generator().manual_seed(seed)
    made = []
    for index in range(4):
        prompt = torch.randint(0, 256, (3 + index,), generator=generator).tolist()
        rows = tuple(
            TrainRow(
                rollout=Rollout(
                    completion_ids=torch.randint(0, 256, (2 + 3 * sample + index,), generator=generator),
                    logprobs=None,
                    text="",
                    finish_reason="stop",
                ),
                advantage=float(torch.randn((), generator=generator)),
                sample=sample,
            )
            for sample in range(4)
        )
        links = ((0, 1), (2, 3)) if pairs else ()
        made.append(TrainGroup(prompt_index=index, prompt_ids=tuple(prompt), rows=rows, num_sequences=4, pairs=links))
    return made


def minibatches(loss: Any, budget: int, count: int = 1) -> list[Minibatch]:
    generator = torch.Generator().manual_seed(0)
    return split_into_minibatches(groups(pairs=loss.needs_pairs), count, budget, generator)


def updater(
    policy: Policy,
    loss: Any,
    *,
    passes: int = 1,
    lr: float = 0.0,
    bad: int = 3,
    schedule: Callable[[int], float] = lambda _: 1.0,
    **changes: Any,
) -> Updater:
    optimizer = torch.optim.SGD(policy.module.parameters(), lr=lr)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
    settings = UpdateSettings(
        temperature=0.8,
        passes_per_rollout=passes,
        max_grad_norm=None,
        importance_cap=None,
        max_bad_updates=bad,
        max_new_tokens=20,
    )
    settings = replace(settings, **changes)
    dtype = policy.compute_dtype
    nearby = tiny_policy(dtype=dtype)
    with torch.no_grad():
        for parameter in nearby.module.parameters():
            parameter.mul_(0.98)
    reference = Reference(frozen_copy(nearby, dtype, policy.device)) if loss.needs_reference else None
    return Updater(policy, optimizer, scheduler, loss, reference, settings)


def gradient(loss: Any, budget: int) -> tuple[torch.Tensor, dict[str, float]]:
    """The gradient of one step, caught before the optimizer takes it; in float64, since float32 rounds otherwise on
    each processor."""
    policy = tiny_policy(dtype=torch.float64)
    caught: list[torch.Tensor] = []
    working = updater(policy, loss)
    step = working.optimizer.step

    def catch(*arguments: Any) -> Any:
        caught.append(torch.cat([parameter.grad.flatten() for parameter in policy.module.parameters()]))
        return step(*arguments)

    working.optimizer.step = catch  # type: ignore[method-assign]
    metrics = values(working.update(minibatches(loss, budget)))
    return caught[0], metrics


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_and_metrics_of_micro_batches_add_up(name: str) -> None:
    loss = LOSSES[name]()
    whole, metrics = gradient(loss, 10_000)
    assert whole.abs().max() > 1e-3
    for budget in (60, 25, 1):
        assert len(minibatches(loss, budget)[0].micro_batches) > 1
        parts, part_metrics = gradient(loss, budget)
        assert (parts - whole).abs().max() < 1e-6 * whole.abs().max()  # norms compute in float32 whatever comes
        assert part_metrics.keys() == metrics.keys()
        for key, value in metrics.items():
            if not key.startswith("time/"):
                assert math.isclose(part_metrics[key], value, rel_tol=1e-4, abs_tol=1e-6), key


@pytest.mark.parametrize("silent", [range(2), range(4)])
def test_the_step_is_the_same_without_completions_that_have_no_advantage(silent: range) -> None:
    """Adam, whose moments move the weights even on a gradient of zeros: so also where no completion has signal."""
    loss = LOSSES["dapo"]()
    quiet = [
        replace(g, rows=tuple(replace(row, advantage=0.0) for row in g.rows)) if g.prompt_index in silent else g
        for g in groups()
    ]
    weights, tokens = [], []
    for skip in (False, True):
        policy = tiny_policy()
        working = updater(policy, loss)
        working.optimizer = torch.optim.AdamW(policy.module.parameters(), lr=1e-2)
        for work in (groups(seed=1), quiet):
            minis = split_into_minibatches(work, 1, 10_000, torch.Generator(), skip_zero_advantages=skip)
            working.update(minis)
        tokens.append(sum(micro.packed.input_ids.shape[0] for mini in minis for micro in mini.micro_batches))
        weights.append(torch.cat([parameter.detach().flatten() for parameter in policy.module.parameters()]))
    assert tokens[1] < 0.7 * tokens[0]
    # The sums over tokens are rounded differently, and Adam divides by what may be all but zero.
    difference = (weights[0] - weights[1]).abs()
    assert (difference > 1e-4).float().mean() < 1e-3


def test_the_first_ratio_is_one_and_later_passes_move_it() -> None:
    loss = LOSSES["pg_grpo"]()
    policy = tiny_policy()
    first = values(updater(policy, loss, lr=0.02).update(minibatches(loss, 60)))
    assert first["ratio/max"] == 1.0
    later = values(updater(tiny_policy(), loss, lr=0.02, passes=3).update(minibatches(loss, 60)))
    assert later["ratio/max"] > 1.0


def test_old_logprobs_are_frozen_before_the_first_of_several_updates() -> None:
    """Two minibatches: the second one's ratio is against the policy from before the first one's update."""
    loss = LOSSES["pg_grpo"]()
    moved = values(updater(tiny_policy(), loss, lr=0.02).update(minibatches(loss, 10_000, count=2)))
    assert moved["ratio/max"] > 1.0
    still = values(updater(tiny_policy(), loss, lr=0.0, passes=2).update(minibatches(loss, 10_000, count=2)))
    assert still["ratio/max"] == 1.0


def test_the_reference_is_bit_equal_to_the_policy_before_training() -> None:
    loss = LOSSES["pg_grpo"]()
    for dtype in (torch.float32, torch.bfloat16):
        base = tiny_policy()
        policy = Policy(base.module, base.tokenizer, dtype)
        reference = Reference(frozen_copy(policy, dtype, policy.device))
        working = updater(policy, loss)
        working._reference = reference
        assert values(working.update(minibatches(loss, 60)))["kl"] == 0.0


@pytest.mark.fault("T17")
def test_an_update_that_is_not_finite_is_never_applied() -> None:
    loss = LOSSES["pg_grpo"]()
    policy = tiny_policy()
    working = updater(policy, loss, lr=0.1, bad=2)
    before = [parameter.detach().clone() for parameter in policy.module.parameters()]
    broken = minibatches(loss, 10_000)
    broken[0].micro_batches[0].advantages[0] = float("nan")
    metrics = values(working.update(broken))
    assert metrics["updates/skipped"] == 1
    for parameter, old in zip(policy.module.parameters(), before, strict=True):
        assert torch.equal(parameter, old)
        assert parameter.grad is None
    with pytest.raises(DivergedError, match="2 updates in a row"):
        working.update(broken)


@pytest.mark.fault("T17")
def test_a_good_update_ends_the_row_of_bad_ones() -> None:
    loss = LOSSES["pg_grpo"]()
    working = updater(tiny_policy(), loss, lr=0.01, bad=2)
    for _ in range(3):
        broken = minibatches(loss, 10_000)
        broken[0].micro_batches[0].advantages[0] = float("inf")
        working.update(broken)
        assert values(working.update(minibatches(loss, 10_000)))["updates/skipped"] == 0


def test_the_gradient_is_clipped_to_max_grad_norm() -> None:
    def applied(limit: float | None) -> tuple[float, float]:
        policy = tiny_policy()
        before = torch.cat([parameter.detach().flatten() for parameter in policy.module.parameters()])
        working = updater(policy, LOSSES["pg_grpo"](), lr=1.0, max_grad_norm=limit)
        norm = values(working.update(minibatches(LOSSES["pg_grpo"](), 10_000)))["grad_norm"]
        after = torch.cat([parameter.detach().flatten() for parameter in policy.module.parameters()])
        return norm, float((after - before).norm())  # of SGD with a rate of 1: the gradient itself

    norm, moved = applied(None)
    assert math.isclose(norm, moved, rel_tol=1e-3)
    clipped_norm, clipped = applied(norm / 10)
    assert math.isclose(clipped_norm, norm, rel_tol=1e-6)  # what is logged is the norm before clipping
    assert math.isclose(clipped, norm / 10, rel_tol=1e-3)


def test_the_scheduler_counts_applied_updates() -> None:
    loss = LOSSES["pg_grpo"]()
    working = updater(tiny_policy(), loss, lr=0.1, passes=2, schedule=lambda update: 1 / (1 + update))
    rates = [values(working.update(minibatches(loss, 10_000)))["learning_rate"] for _ in range(2)]
    assert rates == pytest.approx([0.1, 0.1 / 3])
    broken = minibatches(loss, 10_000)
    broken[0].micro_batches[0].advantages[0] = float("inf")
    working.update(broken)
    assert working.optimizer.param_groups[0]["lr"] == pytest.approx(0.1 / 5)


def sampled(loss: Any, shift: float) -> list[Minibatch]:
    """Minibatches whose sampler had log-probabilities that are `shift` below the policy's."""
    policy = tiny_policy()
    made = minibatches(loss, 10_000)
    changed = []
    for mini in made:
        parts = []
        for micro in mini.micro_batches:
            own = policy.score(micro.packed, 0.8, with_entropy=False).logprobs.detach()
            parts.append(replace(micro, sampler_logprobs=own - shift))
        changed.append(replace(mini, micro_batches=tuple(parts)))
    return changed


def test_the_difference_to_the_sampler_is_logged_before_the_policy_moves() -> None:
    for name in ("dapo", "dpo"):
        loss = LOSSES[name]()
        metrics = values(updater(tiny_policy(), loss, lr=0.05, passes=3).update(sampled(loss, 0.25)))
        assert metrics["sampling/sampling_logp_difference/mean"] == pytest.approx(0.25, abs=1e-4)
        assert metrics["sampling/sampling_logp_difference/max"] == pytest.approx(0.25, abs=1e-4)


def test_importance_weights_are_truncated() -> None:
    """π_old/π_sampler = e^0.25 everywhere: the gradient of a loss without KL is so many times as large, up to the cap."""
    loss = LOSSES["dapo"]()

    def norm(cap: float | None) -> float:
        working = updater(tiny_policy(), loss, importance_cap=cap)
        return values(working.update(sampled(loss, 0.25)))["grad_norm"]

    plain = norm(None)
    assert norm(2.0) / plain == pytest.approx(math.exp(0.25), rel=1e-3)
    assert norm(1.1) / plain == pytest.approx(1.1, rel=1e-3)


def mixed_step(budget: int) -> list[Minibatch]:
    """Two groups that were sampled, 0.25 nats below the policy, and two that the data set brought: a pair each."""
    policy, made = tiny_policy(), []
    for index, group in enumerate(groups()):
        rows = group.rows
        if index < 2:
            packed = pack([group.prompt_ids], [[row.rollout.completion_ids for row in rows]])
            own = policy.score(packed, 0.8, with_entropy=False).logprobs.detach() - 0.25
            parts = own.split([len(row.rollout.completion_ids) for row in rows])
            rows = tuple(replace(r, rollout=replace(r.rollout, logprobs=p)) for r, p in zip(rows, parts, strict=True))
        else:
            changes = [{"finish_reason": "offline", "preference": float(sample == 0)} for sample in range(2)]
            rows = tuple(replace(r, rollout=replace(r.rollout, **c)) for r, c in zip(rows[:2], changes, strict=True))
        made.append(replace(group, rows=rows, num_sequences=len(rows)))
    return split_into_minibatches(made, 1, budget, torch.Generator())


@pytest.mark.parametrize("name", ["pg_grpo", "dapo"])
def test_a_step_of_sampled_and_given_completions_is_the_sum_of_its_parts(name: str) -> None:
    """In one micro-batch or in several that mix the two differently: the same gradient, reference and metrics."""
    found = []
    for budget in (10_000, 45, 1):
        minis = mixed_step(budget)
        assert (minis[0].num_chosen, minis[0].num_sequences) == (2, 12)
        policy = tiny_policy()
        working = updater(policy, LOSSES[name](), importance_cap=1.1, lr=1.0)
        before = torch.cat([parameter.detach().flatten() for parameter in policy.module.parameters()])
        metrics = values(working.update(minis))
        after = torch.cat([parameter.detach().flatten() for parameter in policy.module.parameters()])
        found.append((after - before, metrics))
        assert metrics["sampling/sampling_logp_difference/mean"] == pytest.approx(0.25, abs=1e-4)
        if name == "pg_grpo":
            kept = working._reference.state()["keys"].tolist()  # type: ignore[union-attr]
            assert kept == [[2, 0], [2, 1], [3, 0], [3, 1]]
    (whole, metrics), *others = found
    assert metrics["nll"] > 0
    for moved, again in others:
        assert (moved - whole).abs().max() < 1e-4 * whole.abs().max()
        assert again["nll"] == pytest.approx(metrics["nll"], rel=1e-4)
        assert again["loss"] == pytest.approx(metrics["loss"], rel=1e-3)


def test_dr_grpo_divides_by_the_samplers_longest_completion() -> None:
    none = {"ratio_max": None, "kl_coef": 0.0, "entropy_coef": 0.0, "nll_coef": 0.0}
    fields = {"clip_low": 0.2, "clip_high": 0.2, **none, **SHARED}
    norms = []
    for longest in (20, 40):
        working = updater(tiny_policy(), DrGrpo(**fields), max_new_tokens=longest)
        norms.append(values(working.update(minibatches(DrGrpo(**fields), 10_000)))["grad_norm"])
    assert norms[0] / norms[1] == pytest.approx(2.0, rel=1e-4)


def test_reference_logprobs_of_another_temperature_or_model_are_not_reused() -> None:
    reference = Reference(tiny_policy(), identity="one")
    packed = minibatches(LOSSES["dpo"](), 10_000)[0].micro_batches[0].packed
    keys = [(index, sample) for index in range(4) for sample in range(4)]
    first = reference.logprobs(packed, 1.0, keys)
    assert not torch.equal(reference.logprobs(packed, 0.5, keys), first)
    other = Reference(tiny_policy(init_seed=3), identity="other")
    other.load(reference.state())
    assert torch.equal(other.logprobs(packed, 0.5, keys), other.logprobs(packed, 0.5, [None] * 16))


def test_reference_logprobs_of_the_data_set_are_computed_once_and_saved() -> None:
    policy = tiny_policy()
    reference = Reference(policy)
    (mini,) = minibatches(LOSSES["dpo"](), 10_000)
    packed = mini.micro_batches[0].packed
    keys = [(index, sample) for index in range(4) for sample in range(4)]
    first = reference.logprobs(packed, 1.0, keys)
    with torch.no_grad():
        next(policy.module.parameters()).add_(1.0)
    assert torch.equal(reference.logprobs(packed, 1.0, keys), first)
    assert not torch.equal(reference.logprobs(packed, 1.0, [None] * 16), first)
    other = Reference(tiny_policy(init_seed=3))
    other.load(reference.state())
    assert torch.equal(other.logprobs(packed, 1.0, keys), first)
