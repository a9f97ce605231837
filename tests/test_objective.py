"""KL estimators and their gradients against the exact KL of a small vocabulary."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pggrpo_cli.metrics import values
from pggrpo_cli.objective import clipped_surrogate, kl_to_reference, nll_of_step
from pggrpo_cli.types import TokenScores
from tests.loss.batches import make_batch, numbers


def expectation(estimator: str, logits: torch.Tensor, reference: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(Σ_y π(y) k(y), Σ_y π(y) ∇k(y)): what the estimator and its gradient are on average under π, exactly."""
    logprobs = logits.log_softmax(0)
    _, batch = make_batch(lengths=(1,))
    values, gradients = [], []
    for token in range(len(logits)):
        own = logprobs[token : token + 1]
        one = replace(batch, ref_logprobs=reference.log_softmax(0)[token : token + 1])
        kl, _ = kl_to_reference(TokenScores(logprobs=own, entropies=None), one, estimator, "token_mean")
        weight = float(logprobs[token].exp())
        values.append(weight * kl.detach())
        gradients.append(weight * torch.autograd.grad(kl, logits, retain_graph=True)[0])
    return torch.stack(values).sum(), torch.stack(gradients).sum(0)


def exact(logits: torch.Tensor, reference: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    p, q = logits.log_softmax(0), reference.log_softmax(0)
    kl = (p.exp() * (p - q)).sum()
    return kl.detach(), torch.autograd.grad(kl, logits)[0]


LOGITS, REFERENCE = numbers(1, 12).requires_grad_(), numbers(2, 12)


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_k1_and_k3_are_unbiased(estimator: str) -> None:
    assert torch.allclose(expectation(estimator, LOGITS, REFERENCE)[0], exact(LOGITS, REFERENCE)[0])


def test_what_the_gradients_are_on_average() -> None:
    """k1's is zero, k2's that of the reverse KL, k3's that of the forward KL: as the docstring says."""
    assert torch.allclose(expectation("k1", LOGITS, REFERENCE)[1], torch.zeros(12, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(expectation("k2", LOGITS, REFERENCE)[1], exact(LOGITS, REFERENCE)[1], atol=1e-12)
    p, q = LOGITS.log_softmax(0), REFERENCE.log_softmax(0)
    forward = torch.autograd.grad((q.exp() * (q - p)).sum(), LOGITS)[0]
    assert torch.allclose(expectation("k3", LOGITS, REFERENCE)[1], forward, atol=1e-12)


def test_reductions_and_the_clamp() -> None:
    logprobs, batch = make_batch()
    policy = TokenScores(logprobs=logprobs, entropies=None)
    per_token, _ = kl_to_reference(policy, batch, "k3", "token_mean")
    per_sequence, _ = kl_to_reference(policy, batch, "k3", "sequence_sum")
    assert torch.allclose(per_token * batch.num_tokens, per_sequence * batch.num_sequences)
    far = replace(batch, ref_logprobs=logprobs.detach() + 1000)
    assert bool(kl_to_reference(policy, far, "k3", "token_mean")[0].isfinite())


@pytest.mark.parametrize("ratio_max", [1.1, 3.0])
def test_the_dual_clip_bounds_what_a_negative_advantage_can_weigh(ratio_max: float) -> None:
    """max( min(r A, clip(r) A), ratio_max A ) for A < 0 (Ye et al. 2020), whatever clip_high is."""
    ratio, advantages = torch.tensor([0.5, 1.0, 2.0, 5.0, 5.0]), torch.tensor([-1.0, -1.0, -1.0, -1.0, 1.0])
    expected = []
    for r, a in zip(ratio.tolist(), advantages.tolist(), strict=True):
        term = min(r * a, min(max(r, 0.8), 1.2) * a)
        expected.append(max(term, ratio_max * a) if a < 0 else term)
    assert clipped_surrogate(ratio, advantages, 0.2, 0.2, ratio_max).tolist() == pytest.approx(expected)


def test_the_likelihood_of_chosen_completions_by_hand() -> None:
    """Completions 0 and 2 are chosen, of 3 and 5 tokens: each weighs the same; the gradient is −1/(2·3) and −1/(2·5)."""
    logprobs, batch = make_batch()
    nll, metrics = nll_of_step(TokenScores(logprobs=logprobs, entropies=None), batch)
    tokens = logprobs.tolist()
    expected = -(sum(tokens[:3]) / 3 + sum(tokens[4:9]) / 5) / 2
    assert float(nll) == pytest.approx(expected, rel=1e-12)
    assert values(metrics) == {"nll": pytest.approx(expected, rel=1e-12)}
    (gradient,) = torch.autograd.grad(nll, logprobs)
    assert gradient.tolist() == pytest.approx([-1 / 6] * 3 + [0] + [-1 / 10] * 5 + [0] * 2)


def test_a_step_without_chosen_completions_has_no_likelihood() -> None:
    logprobs, batch = make_batch()
    policy = TokenScores(logprobs=logprobs, entropies=None)
    for none in (replace(batch, chosen=None), replace(batch, chosen=torch.zeros(4, dtype=torch.bool), num_chosen=0)):
        assert (float(nll_of_step(policy, none)[0]), nll_of_step(policy, none)[1]) == (0.0, {})
    elsewhere = replace(batch, chosen=torch.zeros(4, dtype=torch.bool))  # the step has some, this micro-batch none
    assert float(nll_of_step(policy, elsewhere)[0]) == 0.0
