"""Temperature and truncation against transformers' own logits processors."""

from __future__ import annotations

import pytest
import torch
from transformers import LogitsProcessorList, MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from pggrpo_cli.engine.selection import Selection

KEYS = torch.arange(6) * 7919 + 13


def logits(vocabulary: int = 700, scale: float = 2.0) -> torch.Tensor:
    return torch.randn(6, vocabulary, generator=torch.Generator().manual_seed(0)) * scale


@pytest.mark.parametrize(
    ("top_k", "top_p", "min_p"),
    [(5, 1.0, 0.0), (0, 0.3, 0.0), (0, 0.999, 0.0), (0, 1.0, 0.2), (50, 0.8, 0.05), (400, 0.99, 0.0), (700, 1.0, 0.0)],
)
def test_what_is_kept_is_what_transformers_keeps(top_k: int, top_p: float, min_p: float) -> None:
    scores = logits()
    warpers = LogitsProcessorList()
    if top_k:
        warpers.append(TopKLogitsWarper(top_k))
    if top_p < 1:
        warpers.append(TopPLogitsWarper(top_p))
    if min_p:
        warpers.append(MinPLogitsWarper(min_p))
    expected = warpers(torch.zeros(6, 1, dtype=torch.long), scores.clone())
    selection = Selection(temperature=1.0, top_p=top_p, top_k=top_k, min_p=min_p)
    kept = selection._truncated(scores.log_softmax(1))
    assert torch.equal(kept.isfinite(), expected.isfinite())


def test_temperature_divides_and_logprobs_are_before_truncation() -> None:
    selection = Selection(temperature=0.5, top_p=1.0, top_k=1, min_p=0.0)
    scores = logits()
    tokens, logprobs = selection.choose(scores.clone(), KEYS)
    assert torch.equal(tokens, scores.argmax(1))
    expected = (scores / 0.5).log_softmax(1).gather(1, tokens[:, None]).squeeze(1)
    assert torch.allclose(logprobs, expected, atol=1e-5)


def test_greedy_takes_the_largest_at_temperature_one() -> None:
    scores = logits()
    tokens, logprobs = Selection(temperature=0.0, top_p=1.0, top_k=0, min_p=0.0).choose(scores.clone(), KEYS)
    assert torch.equal(tokens, scores.argmax(1))
    assert torch.allclose(logprobs, scores.log_softmax(1).amax(1), atol=1e-5)


def test_truncated_tokens_are_never_drawn() -> None:
    selection = Selection(temperature=1.0, top_p=0.5, top_k=0, min_p=0.0)
    scores = logits(scale=0.3)[:1].expand(6, -1)
    kept = selection._truncated(scores.log_softmax(1))[0].isfinite()
    drawn = [selection.choose(scores.clone(), KEYS + 1000 * index)[0] for index in range(200)]
    assert bool(kept[torch.cat(drawn)].all())
    assert len(torch.cat(drawn).unique()) > 20
