"""decode.c against the policy's own module, and what of a batch a row must not notice."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from pggrpo_cli.compiled.steps import CompiledDecoding
from pggrpo_cli.engine.steps import Capacity, LiveRows, Steps, torch_steps
from pggrpo_cli.policy import Policy
from tests.compiled.here import compiled_library
from tests.conftest import tiny_policy

PROMPTS = [[5, 17, 3], [7], list(range(40, 90)), [9] * 16]
CAPACITY = Capacity(slots=5, prompt_tokens=50, rows=40, row_tokens=40)
TOKENS = torch.randint(0, 256, (35, 37), generator=torch.Generator().manual_seed(2)).tolist()


@pytest.fixture(scope="module", params=["llama", "qwen2", "qwen3"])
def member(request: pytest.FixtureRequest) -> Policy:
    policy = tiny_policy(request.param)
    for name, parameter in policy.module.named_parameters():  # norms of 1 and biases of 0 would hide a mistake
        if "norm" in name or "bias" in name:
            torch.nn.init.normal_(parameter, mean=float("norm" in name), std=0.3)
    return policy


def compiled(policy: Policy) -> CompiledDecoding:
    compiled_library(bfloat16=policy.compute_dtype == torch.bfloat16)
    return CompiledDecoding.of(policy)


def fed(steps: Steps, rows: Sequence[int], slots: Sequence[int], held: int, prompts: Sequence[int]) -> torch.Tensor:
    live = LiveRows(slots=slots, held=[held] * len(rows), prompt_lengths=[len(PROMPTS[index]) for index in prompts])
    return steps.next_logits([TOKENS[row][held] for row in rows], live).clone()


def of_module(policy: Policy, ids: Sequence[int]) -> torch.Tensor:
    with torch.no_grad(), policy.plain_attention():
        return policy.module.double()(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]


def test_logits_are_those_of_the_module_in_float64(member: Policy) -> None:
    exact = tiny_policy(member.module.config.model_type, dtype=torch.float64)
    exact.module.load_state_dict({name: part.double() for name, part in member.module.state_dict().items()})
    rows, slots = [0, 1, 2, 3, 4], [0, 0, 1, 2, 3]
    with compiled(member).open_steps(member, CAPACITY) as steps:
        found = [steps.prefill(PROMPTS, 0)]
        found += [fed(steps, rows, slots, held, range(4)) for held in range(35)]
    for prompt, logits in zip(PROMPTS, found[0], strict=True):
        assert torch.allclose(logits.double(), of_module(exact, prompt), atol=2e-4)
    for held in (0, 1, 15, 16, 34):
        for row, slot in zip(rows, slots, strict=True):
            expected = of_module(exact, PROMPTS[slot] + TOKENS[row][: held + 1])
            assert torch.allclose(found[held + 1][row].double(), expected, atol=2e-4)
    assert expected.std() > 0.5


def test_bfloat16_is_as_near_as_torch_is() -> None:
    exact, narrow = tiny_policy(init_seed=3), tiny_policy(init_seed=3, dtype=torch.bfloat16)

    def logprobs(policy: Policy, code: object) -> torch.Tensor:
        with code(policy, CAPACITY) as steps:  # type: ignore[operator]
            steps.prefill(PROMPTS, 0)
            return torch.cat(
                [fed(steps, range(8), [0, 1, 2, 3] * 2, held, range(4)) for held in range(20)]
            ).log_softmax(1)

    expected = logprobs(exact, torch_steps)
    of_torch = (logprobs(narrow, torch_steps) - expected).abs().mean()
    ours = (logprobs(narrow, compiled(narrow).open_steps) - expected).abs().mean()
    assert 0 < ours < 1.3 * of_torch


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_is_the_same_to_the_bit_alone_and_among_others(dtype: torch.dtype) -> None:
    policy = tiny_policy(dtype=dtype)
    code = compiled(policy)
    rows, slots = list(range(35)), [row % 4 for row in range(35)]
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with code.open_steps(policy, CAPACITY) as steps:
            prompts = steps.prefill(PROMPTS, 0)
            together = [fed(steps, rows, slots, held, range(4)) for held in range(20)]
        torch.set_num_threads(1)
        for row in (0, 11, 13, 34):
            with code.open_steps(policy, CAPACITY) as steps:
                alone = steps.prefill([PROMPTS[slots[row]]], 0)
                assert torch.equal(alone[0], prompts[slots[row]])
                for held in range(20):
                    assert torch.equal(fed(steps, [row], [0], held, [slots[row]])[0], together[held][row])
    finally:
        torch.set_num_threads(threads)


def test_what_has_moved_goes_on(member: Policy) -> None:
    with compiled(member).open_steps(member, CAPACITY) as steps:
        steps.prefill(PROMPTS, 0)
        for held in range(18):
            expected = fed(steps, range(5), [0, 1, 2, 3, 2], held, range(4))
        expected = fed(steps, range(5), [0, 1, 2, 3, 2], 18, range(4))
    with compiled(member).open_steps(member, CAPACITY) as steps:
        steps.prefill(PROMPTS, 0)
        for held in range(18):
            fed(steps, range(5), [0, 1, 2, 3, 2], held, range(4))
        steps.move_row(4, 0, 18)  # row 0 and, with it, prompt 0 are done
        steps.move_prompt(3, 0, len(PROMPTS[3]))
        found = fed(steps, [4, 1, 2, 3], [2, 1, 2, 0], 18, [3, 1, 2])
    assert torch.equal(found, expected[[4, 1, 2, 3]])


def test_a_scale_of_the_logits() -> None:
    from transformers import (  # has norms of its own: Unlike; only its scale is wanted here
        CohereConfig,
    )

    assert CohereConfig().logit_scale != 1
    policy = tiny_policy()
    policy.module.config.logit_scale = 0.25  # of Cohere's and Granite's configurations
    plain = tiny_policy()
    with compiled(plain).open_steps(plain, CAPACITY) as steps:
        expected = steps.prefill(PROMPTS, 0) * 0.25
    with compiled(policy).open_steps(policy, CAPACITY) as steps:
        assert torch.allclose(steps.prefill(PROMPTS, 0), expected)
