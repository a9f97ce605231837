"""The law of the keyed draws, and what they depend on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pggrpo_cli.engine.draws import keyed_categorical, position_keys, row_key
from pggrpo_cli.types import DrawKey

DRAWS = DrawKey(seed=1, purpose="rollout", step=2)


def keys(count: int, position: int = 0) -> torch.Tensor:
    rows = torch.tensor([row_key(DRAWS, ordinal, 0) for ordinal in range(count)])
    return position_keys(rows, torch.full_like(rows, position))


def draw(logits: torch.Tensor, row_keys: torch.Tensor) -> torch.Tensor:
    rows = logits.expand(len(row_keys), -1)
    return keyed_categorical(rows.log_softmax(1), row_keys)


def chi_square_per_degree(logits: torch.Tensor, count: int) -> float:
    counts = torch.bincount(draw(logits, keys(count)), minlength=len(logits)).double()
    expected = logits.double().softmax(0) * count
    return float(((counts - expected).square() / expected).sum() / (len(logits) - 1))


def test_law_of_a_small_vocabulary() -> None:
    assert chi_square_per_degree(torch.linspace(-2, 2, 40), 20000) < 1.6


def test_law_reaches_the_tokens_that_share_one_draw() -> None:
    logits = torch.linspace(1, -1, 600)  # half of the mass lies behind the 256 largest
    assert chi_square_per_degree(logits, 20000) < 1.3


def test_zero_probability_is_never_drawn() -> None:
    logits = torch.linspace(-1, 1, 600)
    logits[::2] = float("-inf")
    assert bool((draw(logits, keys(2000)) % 2 == 1).all())


def test_what_is_truncated_away_is_not_drawn_even_if_rounding_leaves_it_mass() -> None:
    """Found by search: the number of the rest of the vocabulary, whose mass is 1e-7 by rounding, wins with this key."""
    logprobs = torch.full((1, 600), float("-inf"))
    logprobs[0, 300:305] = torch.tensor([0.3, 0.2, 0.2, 0.2, 0.0999]).log()
    winning = torch.zeros(1, dtype=torch.long)
    with pytest.MonkeyPatch.context() as patch:
        rest_first = lambda row_keys, items: torch.where(items == 600, 1e6, torch.zeros(items.shape).double())  # noqa: E731
        patch.setattr("pggrpo_cli.engine.draws._gumbel", rest_first)
        assert 300 <= int(keyed_categorical(logprobs, winning)) < 305


def test_positions_are_independent() -> None:
    logits = torch.zeros(2)
    first, second = draw(logits, keys(20000, 0)), draw(logits, keys(20000, 1))
    assert abs(float((first == second).float().mean()) - 0.5) < 0.015


def test_every_part_of_the_key_counts() -> None:
    variants = {
        row_key(DRAWS, 0, 0),
        row_key(DRAWS, 1, 0),
        row_key(DRAWS, 0, 1),
        row_key(replace(DRAWS, seed=2), 0, 0),
        row_key(replace(DRAWS, step=3), 0, 0),
        row_key(replace(DRAWS, purpose="evaluation"), 0, 0),
    }
    assert len(variants) == 6
    assert row_key(replace(DRAWS, first_ordinal=5), 2, 0) == row_key(DRAWS, 7, 0)


def test_the_numbers_are_these_for_ever() -> None:
    """A resumed run of an older version draws the same."""
    assert row_key(DRAWS, 0, 0) == -6103356955262681300
    assert draw(torch.linspace(-2, 2, 1000), keys(6)).tolist() == [643, 677, 966, 886, 326, 901]


def test_rounding_does_not_move_a_draw() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4000, 1000, generator=generator) * 2
    noisy = logits + 1e-6 * torch.randn(4000, 1000, generator=generator)
    row_keys = keys(4000)
    one = keyed_categorical(logits.log_softmax(1), row_keys)
    other = keyed_categorical(noisy.log_softmax(1), row_keys)
    assert int((one != other).sum()) <= 1
