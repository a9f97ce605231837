"""packed_attention.c against torch's path, in float64 and in its own dtype, forward and gradients."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pggrpo_cli.attention import Heads
from pggrpo_cli.compiled import packed as compiled_packed
from pggrpo_cli.compiled import update
from pggrpo_cli.compiled.packed import CompiledPacked
from pggrpo_cli.packed_attention import PackedGroup, PackedPlan
from pggrpo_cli.policy import Policy
from tests.compiled.test_head import needs_library
from tests.conftest import tiny_model

Groups = tuple[tuple[int, tuple[int, ...]], ...]
FEW: Groups = ((5, (3, 0, 4)), (1, (2,)), (4, ()), (2, (0, 0)), (3, (2, 2, 1, 1, 7, 2)))
MANY: Groups = ((50, (63, 20, 1, 16, 17, 40)), (33, (5,)))
LONG: Groups = ((1100, (30,)), (7, (1100, 3)))
CASES = [
    pytest.param(FEW, 4, 2, 8, id="a few tokens"),
    pytest.param(MANY, 9, 3, 64, id="heads of SmolLM2"),
    pytest.param(MANY, 2, 2, 22, id="a key head each"),
    pytest.param(LONG, 4, 1, 16, id="more than 1024 keys"),
    pytest.param(FEW, 60, 1, 6, id="more heads than rows of a block"),
]


def plan_of(groups: Groups, dtype: torch.dtype) -> tuple[PackedPlan, int]:
    found, start = [], 0
    for prompt, completions in groups:
        found.append(PackedGroup(start, prompt, completions))
        start += found[-1].num_tokens
    return PackedPlan(found, dtype), start


def attended(
    groups: Groups, heads: int, key_heads: int, size: int, dtype: torch.dtype, scaling: float | None = None
) -> tuple[torch.Tensor, ...]:
    """The output and the gradients of query, key and value."""
    plan, tokens = plan_of(groups, dtype)
    generator = torch.Generator().manual_seed(1)
    made = [torch.randn(num, tokens, size, generator=generator) for num in (heads, key_heads, key_heads, heads)]
    *tensors, grad = [part.to(torch.bfloat16).to(dtype) for part in made]
    for part in tensors:
        part.requires_grad_()
    out = plan.attend(Heads(*tensors, layer=0, scaling=scaling, sliding_window=None, softcap=None))
    return out.detach(), *torch.autograd.grad(out, tensors, grad)


@pytest.mark.parametrize(("groups", "heads", "key_heads", "size"), CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 3e-6), (torch.bfloat16, 6e-3)])
def test_it_is_torch_in_float64_to_rounding(
    groups: Groups, heads: int, key_heads: int, size: int, dtype: torch.dtype, tolerance: float
) -> None:
    needs_library(dtype)
    wanted = attended(groups, heads, key_heads, size, torch.float64)
    for ours, theirs in zip(attended(groups, heads, key_heads, size, dtype), wanted, strict=True):
        assert float((ours.double() - theirs).norm() / theirs.norm()) < tolerance


def test_scores_beyond_what_a_log_resolves() -> None:
    """The backward's weights are the forward's: with a log mass of 1e9 in float32 they would be off by e to the 32."""
    needs_library(torch.float32)
    found = attended(FEW, 4, 2, 8, torch.float32, scaling=1e9)
    wanted = attended(FEW, 4, 2, 8, torch.float64, scaling=1e9)
    assert torch.allclose(found[0].double(), wanted[0], atol=1e-5)
    assert torch.allclose(found[3].double(), wanted[3], atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_threads_do_not_matter(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    needs_library(dtype)
    found = []
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        found.append(attended(MANY, 6, 2, 16, dtype))
    assert all(torch.equal(one, several) for one, several in zip(*found, strict=True))


def test_completions_are_computed_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_packed, "COMPLETIONS_OF_A_PART", 2)
    found = CompiledPacked.of(None, [PackedGroup(0, 5, (3, 0, 4, 17)), PackedGroup(29, 2, ())])  # type: ignore[arg-type]
    assert found.parts == ((0, 0, 0, 0, 1, 0), (0, 5, 5, 1, 2, 5), (0, 5, 12, 3, 1, 10), (0, 0, 29, 4, 1, 15))
    assert found.lengths == (5, 3, 4, 17, 2)
    assert (found.most_keys, found.shared_keys) == (16 + 32, 17)


def test_what_it_does_not_compute_is_left_to_torch() -> None:
    needs_library(torch.float32)
    plan, tokens = plan_of(FEW, torch.float32)
    parts = [torch.zeros(2, tokens, 4) for _ in range(3)]
    heads = Heads(*parts, layer=0, scaling=None, sliding_window=None, softcap=None)
    assert plan._compiled_for(heads) is not None
    assert plan._compiled_for(replace(heads, softcap=2.0)) is None
    assert plan._compiled_for(replace(heads, sliding_window=3)) is None
    assert plan._compiled_for(replace(heads, value=parts[2][..., :2])) is None
    assert plan_of(FEW, torch.float64)[0]._compiled_for(heads) is None
    with update.in_torch():
        assert plan._compiled_for(heads) is None


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_of_a_policy(checkpointing: bool) -> None:
    """All its parameters, with and without activations computed again in the backward."""
    needs_library(torch.float32)
    found = []
    for compiled in (True, False):
        loaded = tiny_model().load()
        policy = Policy(loaded.module, loaded.tokenizer, torch.float32, gradient_checkpointing=checkpointing)
        found.append(gradients(policy) if compiled else in_torch(policy))
    for ours, theirs in zip(*found, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()) + 1e-12)


def gradients(policy: Policy) -> list[torch.Tensor]:
    from pggrpo_cli.packing import pack

    generator = torch.Generator().manual_seed(2)
    completions = [torch.randint(0, 200, (length,), generator=generator) for length in (1, 5, 9)]
    scores = policy.score(pack([[3], [5, 9, 2]], [completions[:1], completions[1:]]), 0.8, with_entropy=True)
    assert scores.entropies is not None
    (scores.logprobs.sum() + 0.1 * scores.entropies.sum()).backward()
    return [parameter.grad for parameter in policy.module.parameters() if parameter.grad is not None]


def in_torch(policy: Policy) -> list[torch.Tensor]:
    with update.in_torch():
        return gradients(policy)
