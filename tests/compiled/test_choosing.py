"""choose.c against engine/selection.py, and the law of its draws by itself."""

from __future__ import annotations

import pytest
import torch

from pggrpo_cli.compiled.choosing import choose
from pggrpo_cli.engine import draws
from pggrpo_cli.engine.draws import position_keys, row_key
from pggrpo_cli.engine.selection import Selection
from pggrpo_cli.types import DrawKey
from tests.compiled.here import compiled_library

DRAWS = DrawKey(seed=1, purpose="rollout", step=2)
INFINITE = float("inf")


def selection(temperature: float = 1.0) -> Selection:
    return Selection(temperature=temperature, top_p=1.0, top_k=0, min_p=0.0)


def keys(count: int) -> torch.Tensor:
    rows = torch.tensor([row_key(DRAWS, ordinal, 0) for ordinal in range(count)])
    return position_keys(rows, torch.zeros_like(rows))


def chosen(logits: torch.Tensor, temperature: float = 1.0, threads: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    return choose(compiled_library(), selection(temperature), logits, keys(len(logits)), threads)


@pytest.mark.parametrize("vocabulary", [1, 2, 40, 255, 256, 257, 700, 5000])
@pytest.mark.parametrize(("temperature", "scale"), [(1.0, 1.0), (0.7, 4.0), (0.0, 2.0)])
def test_the_same_tokens_as_torch(vocabulary: int, temperature: float, scale: float) -> None:
    """Flat logits too: then the tokens that share one number win often."""
    logits = torch.randn(300, vocabulary, generator=torch.Generator().manual_seed(vocabulary)) * scale
    tokens, logprobs = chosen(logits, temperature)
    expected, expected_logprobs = selection(temperature).choose(logits.clone(), keys(300))
    assert torch.equal(tokens, expected)
    assert torch.allclose(logprobs, expected_logprobs, atol=2e-6)
    assert vocabulary == 1 or len(tokens.unique()) > 1


def test_what_shares_a_number_is_drawn_as_torch_draws_it() -> None:
    logits = torch.linspace(1, -1, 5000).expand(400, -1).contiguous()
    tokens, _ = chosen(logits)
    assert (tokens >= 256).float().mean() > 0.8
    assert torch.equal(tokens, selection().choose(logits.clone(), keys(400))[0])


@pytest.mark.parametrize("logits", [torch.linspace(-2, 2, 40), torch.linspace(1, -1, 600), torch.zeros(600)])
def test_the_law(logits: torch.Tensor) -> None:
    tokens, _ = chosen(logits.expand(20000, -1).contiguous(), threads=2)
    expected = logits.double().softmax(0) * 20000
    counts = torch.bincount(tokens, minlength=len(logits)).double()
    assert float(((counts - expected).square() / expected).sum() / (len(logits) - 1)) < 1.6


def test_of_equal_logits_the_first_is_the_largest() -> None:
    logits = torch.zeros(3, 700)
    logits[1, 300:] = 1
    logits[2, [699, 17]] = 2
    assert chosen(logits, temperature=0.0)[0].tolist() == [0, 300, 17]


def test_of_equal_logits_the_first_have_numbers_of_their_own() -> None:
    tokens, _ = chosen(torch.zeros(300, 600))
    scores = draws._gumbel(keys(300)[:, None], torch.arange(256))
    rest = torch.log(torch.tensor(344.0)) + draws._gumbel(keys(300), torch.full((300,), 600))
    best, first = scores.max(1)
    own = best > rest
    assert 0.3 < own.float().mean() < 0.6
    assert torch.equal(tokens[own], first[own])
    assert bool((tokens[~own] >= 256).all())


def test_what_cannot_be_is_not_drawn() -> None:
    logits = torch.full((2000, 700), -INFINITE)
    logits[:, [3, 300, 699]] = torch.tensor([0.0, 1.0, 0.5])
    tokens, logprobs = chosen(logits)
    assert set(tokens.tolist()) == {3, 300, 699}
    assert torch.allclose(
        logprobs, torch.tensor([0.0, 1.0, 0.5]).log_softmax(0)[torch.bucketize(tokens, torch.tensor([3, 300]))]
    )


@pytest.mark.parametrize("bad", [float("nan"), INFINITE])
def test_a_row_without_a_distribution_says_so_and_others_do_not_notice(bad: float) -> None:
    logits = torch.randn(4, 700, generator=torch.Generator().manual_seed(0))
    tokens, logprobs = chosen(logits)
    broken = logits.clone()
    broken[2, 5] = bad
    found, found_logprobs = chosen(broken)
    assert bool(found_logprobs[2].isnan())
    kept = [0, 1, 3]
    assert torch.equal(found[kept], tokens[kept])
    assert torch.equal(found_logprobs[kept], logprobs[kept])


def test_rows_and_threads_change_nothing() -> None:
    logits = torch.randn(9, 3000, generator=torch.Generator().manual_seed(0)) * 3
    tokens, logprobs = chosen(logits, threads=2)
    alone = [choose(compiled_library(), selection(), logits[i : i + 1], keys(9)[i : i + 1], 1) for i in range(9)]
    assert torch.equal(torch.cat([one[0] for one in alone]), tokens)
    assert torch.equal(torch.cat([one[1] for one in alone]), logprobs)


def test_it_does_not_truncate() -> None:
    with pytest.raises(ValueError, match="truncate"):
        choose(
            compiled_library(), Selection(temperature=1.0, top_p=0.5, top_k=0, min_p=0.0), torch.zeros(1, 9), keys(1), 1
        )
