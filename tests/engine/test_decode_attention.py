"""One new token a row, against each row computed alone in float64."""

import math

import pytest
import torch

from pggrpo_cli.attention import Heads
from pggrpo_cli.engine import decode_attention
from pggrpo_cli.engine.decode_attention import DecodePlan, Seating
from pggrpo_cli.engine.key_values import KeyValueStore

KEY_HEADS, STACKED, SIZE = 2, 3, 8

SEATINGS = {
    "one prompt": ([0, 0, 0], [5], [2, 2, 2]),
    "equal prompts": ([0, 0, 1, 1], [4, 4], [3, 3, 3, 3]),
    "unequal prompts": ([0, 0, 1, 1], [4, 7], [3, 3, 3, 3]),
    "unequal completions": ([0, 0, 1, 1], [4, 4], [0, 3, 1, 5]),
    "rows out of order": ([1, 0, 1, 1, 2, 0], [3, 6, 1], [4, 0, 2, 4, 1, 3]),
}


def _filled(
    slots: list[int], prompts: list[int], held: list[int], dtype: torch.dtype
) -> tuple[DecodePlan, list, Heads]:
    """The plan, every row's keys and values so far, and the new token's heads."""
    torch.manual_seed(0)
    store = KeyValueStore(len(prompts) + 1, max(prompts) + 2, len(slots) + 1, max(held) + 2, dtype)
    shared = [torch.randn(2, KEY_HEADS, length, SIZE).to(dtype) for length in prompts]
    for slot, (keys, values) in enumerate(shared):
        store.write_prompt(0, slot, keys, values)
    own = [[torch.randn(2, KEY_HEADS, SIZE).to(dtype) for _ in range(count + 1)] for count in held]
    for position in range(max(held)):  # a row that is full already writes where the new token will stand
        fed = torch.stack([row[min(position, len(row) - 1)] for row in own], dim=2)
        store.append(0, torch.tensor([min(position, count) for count in held]), fed[0], fed[1], max(held) + 1)
    newest = torch.stack([row[-1] for row in own], dim=2)
    query = torch.randn(KEY_HEADS * STACKED, len(slots), SIZE).to(dtype)
    heads = Heads(query, newest[0], newest[1], 0, None, None, None)
    plan = DecodePlan(
        store=store,
        seating=Seating.of(slots, prompts, torch.device("cpu")),
        lengths=torch.tensor(held),
        equal_length=held[0] if len(set(held)) == 1 else None,
        longest=max(held) + 1,
    )
    seen = [torch.cat([shared[slot], torch.stack(row, dim=2)], dim=2) for slot, row in zip(slots, own, strict=True)]
    return plan, seen, heads


def _alone(seen: list[torch.Tensor], heads: Heads, window: int | None, softcap: float | None) -> torch.Tensor:
    """[H, B, D]: a loop over rows and heads."""
    out = torch.zeros(heads.query.shape, dtype=torch.float64)
    for row, (keys, values) in enumerate(seen):
        keys, values = keys.double(), values.double()
        for head in range(KEY_HEADS * STACKED):
            scores = keys[head // STACKED] @ heads.query[head, row].double() / math.sqrt(SIZE)
            if softcap is not None:
                scores = softcap * torch.tanh(scores / softcap)
            if window is not None:
                scores[: max(0, len(scores) - window)] = -math.inf
            out[head, row] = scores.softmax(0) @ values[head // STACKED]
    return out


@pytest.mark.parametrize("name", SEATINGS)
@pytest.mark.parametrize(("window", "softcap"), [(None, None), (3, None), (6, None), (None, 1.5), (5, 1.5)])
def test_every_row_sees_its_prompt_and_its_own_tokens(name: str, window: int | None, softcap: float | None) -> None:
    plan, seen, heads = _filled(*SEATINGS[name], torch.float32)
    heads = Heads(heads.query, heads.key, heads.value, 0, None, window, softcap)
    torch.testing.assert_close(plan.attend(heads).double(), _alone(seen, heads, window, softcap), atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("name", SEATINGS)
def test_the_fused_kernel_and_plain_products_agree(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert decode_attention._has_fused("cpu"), "this torch has no fused kernel that gives the softmax's mass"
    plan, _, heads = _filled(*SEATINGS[name], torch.float32)
    fused = plan.attend(heads)
    monkeypatch.setattr(decode_attention, "_has_fused", lambda device: False)
    plan, _, heads = _filled(*SEATINGS[name], torch.float32)
    torch.testing.assert_close(plan.attend(heads), fused, atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("name", SEATINGS)
def test_bfloat16_stays_within_its_rounding(name: str) -> None:
    plan, seen, heads = _filled(*SEATINGS[name], torch.bfloat16)
    out = plan.attend(heads)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.double(), _alone(seen, heads, None, None), atol=2e-2, rtol=2e-2)


def test_scaling_is_the_models() -> None:
    plan, seen, heads = _filled(*SEATINGS["unequal prompts"], torch.float32)
    scaled = plan.attend(Heads(heads.query, heads.key, heads.value, 0, 1 / math.sqrt(SIZE) * 2, None, None))
    twice = Heads(heads.query * 2, heads.key, heads.value, 0, None, None, None)
    torch.testing.assert_close(scaled.double(), _alone(seen, twice, None, None), atol=2e-6, rtol=2e-6)


def test_a_moved_row_and_a_moved_prompt_are_read_from_their_new_places() -> None:
    plan, seen, heads = _filled([0, 1, 2], [4, 2, 5], [3, 3, 3], torch.float32)
    store = plan.store
    store.move_row(2, 0, 3)  # row 0 has ended, and its prompt with it
    store.move_prompt(2, 0, 5)
    rest = DecodePlan(
        store=store,
        seating=Seating.of([0, 1], [5, 2], torch.device("cpu")),
        lengths=torch.tensor([3, 3]),
        equal_length=3,
        longest=4,
    )
    kept = Heads(heads.query[:, [2, 1]], heads.key[:, [2, 1]], heads.value[:, [2, 1]], 0, None, None, None)
    torch.testing.assert_close(
        rest.attend(kept).double(), _alone([seen[2], seen[1]], kept, None, None), atol=2e-6, rtol=2e-6
    )
