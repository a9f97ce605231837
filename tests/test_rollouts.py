"""What of scored groups is trained on."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from pggrpo_cli.loss.dpo import Dpo
from pggrpo_cli.loss.sft import Sft
from pggrpo_cli.pairing.best_worst import BestWorst
from pggrpo_cli.rollouts import has_signal, is_worth_training, rollout_metrics, score_groups, train_groups
from pggrpo_cli.types import FinishReason, Rollout, RolloutGroup, ScoredGroup
from tests.conftest import make_prompts
from tests.scoring.test_scorer import scorer
from tests.test_update import LOSSES

DPO = Dpo(beta=0.1, label_smoothing=0.0, length_normalized=False, reference_free=False, nll_coef=0.0)


def group(rewards: list[float], ends: list[FinishReason]) -> ScoredGroup:
    (prompt,) = make_prompts([[1, 2, 3]])
    rollouts = [
        Rollout(completion_ids=torch.tensor([place]), logprobs=None, text="", finish_reason=end)
        for place, end in enumerate(ends)
    ]
    return ScoredGroup(prompt=prompt, rollouts=rollouts, rewards=rewards, reward_terms={}, advantages=[*rewards])


def places(made: Any) -> list[int]:
    return [row.sample for row in made.rows]


@pytest.mark.parametrize(("masked", "trained"), [(False, [0, 1, 2, 3]), (True, [0, 2])])
@pytest.mark.fault("T23")
def test_truncated_completions_leave_the_loss_but_not_its_normaliser(masked: bool, trained: list[int]) -> None:
    scored = group([1.0, 0.0, 0.5, 0.0], ["stop", "length", "stop", "length"])
    (made,) = train_groups([scored], LOSSES["pg_grpo"](), BestWorst(), mask_truncated=masked)
    assert places(made) == trained
    assert made.num_sequences == 4


@pytest.mark.fault("T14")
def test_completions_without_a_reward_leave_both_unless_the_loss_needs_none() -> None:
    scored = group([1.0, math.nan, 0.5], ["stop", "stop", "stop"])
    (made,) = train_groups([scored], LOSSES["pg_grpo"](), BestWorst(), mask_truncated=False)
    assert places(made) == [0, 2]
    assert made.num_sequences == 2
    (made,) = train_groups([scored], Sft(), BestWorst(), mask_truncated=False)
    assert places(made) == [0, 1, 2]
    assert made.num_sequences == 3


def test_chosen_completions_stay_without_a_reward_where_they_are_imitated() -> None:
    scored = group([1.0, math.nan, math.nan], ["stop", "offline", "stop"])
    scored = replace(scored, advantages=[0.0] * 3)  # as any baseline gives for one reward alone
    loss = LOSSES["pg_grpo"]()
    (made,) = train_groups([scored], loss, BestWorst(), mask_truncated=False)
    assert (places(made), made.num_sequences) == ([0, 1], 2)
    without = replace(loss, nll_coef=0.0)
    (made,) = train_groups([scored], without, BestWorst(), mask_truncated=False)
    assert (places(made), made.num_sequences) == ([0], 1)
    assert is_worth_training(scored, loss)  # trainer.filter_constant_groups does not leave it out
    assert not is_worth_training(scored, without)


def test_only_paired_completions_are_computed_and_pairs_point_at_them() -> None:
    first = group([0.2, 0.9, 0.1, 0.5], ["stop"] * 4)
    second = group([0.3, 0.3], ["stop"] * 2)
    made, constant = train_groups([first, second], DPO, BestWorst(), mask_truncated=False)
    assert places(made) == [1, 2]
    assert made.pairs == ((0, 1),)
    assert constant.rows == ()


def test_an_advantage_gets_the_terms_without_their_weights() -> None:
    """Scaled, not weighted: rewards = Σ weight · term."""
    seen: dict[str, torch.Tensor] = {}

    def advantage(
        rewards: torch.Tensor, terms: torch.Tensor, weights: torch.Tensor, group_index: torch.Tensor
    ) -> torch.Tensor:
        seen.update(rewards=rewards, terms=terms, weights=weights, group_index=group_index)
        return rewards * 0

    working = scorer(
        a=(lambda samples: [1, 2, None, 4], {"weight": 3.0, "scale": 10.0}), b=(lambda samples: [0, 1, None, 0], 0.5)
    )
    (prompt,) = make_prompts([[1]])
    rollout = Rollout(completion_ids=torch.tensor([5]), logprobs=None, text="x", finish_reason="stop")
    score_groups([RolloutGroup(prompt=prompt, rollouts=[rollout] * 2)] * 2, working.begin(), advantage, step=1)
    assert seen["weights"].tolist() == [3.0, 0.5]
    assert seen["terms"][[0, 1, 3]].tolist() == [[10, 0], [20, 1], [40, 0]]
    assert seen["terms"][2].isnan().all()
    assert seen["group_index"].tolist() == [0, 0, 1, 1]
    assert seen["rewards"].isnan().tolist() == [False, False, True, False]
    present = ~seen["rewards"].isnan()
    assert seen["rewards"][present].tolist() == (seen["terms"] @ seen["weights"])[present].tolist() == [30, 60.5, 120]


def test_terms_that_differ_behind_one_sum_are_a_signal() -> None:
    same = group([1.0, 1.0], ["stop"] * 2)
    assert not has_signal(replace(same, advantages=[0.0, 0.0]))
    assert has_signal(replace(same, advantages=[0.7, -0.7]))
    assert not has_signal(replace(same, advantages=[math.nan, 0.0]))
    assert rollout_metrics([replace(same, advantages=[0.7, -0.7])])["frac_reward_zero_std"].total == 1
