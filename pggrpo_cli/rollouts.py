"""From prompts to scored groups: sample, score, turn rewards into advantages; leave out groups without signal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from pggrpo_cli.batching import TrainGroup, TrainRow
from pggrpo_cli.metrics import Metric, maximum, mean, minimum, total
from pggrpo_cli.protocols import Advantage, Finished, Loss, Pairing
from pggrpo_cli.scoring.scorer import ScoredSamples, Scoring
from pggrpo_cli.types import Rollout, RolloutGroup, Sample, ScoredGroup


def samples_of(groups: Sequence[RolloutGroup], step: int) -> list[Sample]:
    """One sample a completion, group after group."""
    return [sample for ordinal, group in enumerate(groups) for sample in _samples(ordinal, group, step)]


def _samples(ordinal: int, group: RolloutGroup, step: int) -> list[Sample]:
    return [
        Sample(
            prompt=group.prompt.row.prompt,
            completion=rollout.text,
            completion_ids=rollout.completion_ids.tolist(),
            finish_reason=rollout.finish_reason,
            columns=group.prompt.row.columns,
            preference=rollout.preference,
            step=step,
            group=ordinal,
        )
        for rollout in group.rollouts
    ]


def scored_meanwhile(scoring: Scoring, step: int) -> Finished | None:
    """For a sampler, so that a group is scored while others are still sampled; None if no reward does that."""
    if not scoring.begins_ahead:
        return None
    return lambda ordinal, group: scoring.add(_samples(ordinal, group, step))


def score_groups(
    groups: Sequence[RolloutGroup], scoring: Scoring, advantage: Advantage, step: int
) -> tuple[list[ScoredGroup], dict[str, Metric]]:
    """Scores all completions and computes the advantages over all of them. Also reward/errors, and what the rewards log
    themselves."""
    scored = scoring.finish(samples_of(groups, step))
    group_index = [index for index, group in enumerate(groups) for _ in group.rollouts]
    advantages = advantages_of(scored, scoring.weights, advantage, group_index)
    metrics = {name: mean(value, 1) for name, value in scored.metrics.items()}
    return divided(groups, scored, advantages), metrics | {"reward/errors": total(scored.errors)}


def advantages_of(
    scored: ScoredSamples, weights: Mapping[str, float], advantage: Advantage, group_index: Sequence[int]
) -> list[float]:
    """[B], over all of them; group_index [B]."""
    names = list(scored.terms)
    numbers = [[_number(value) for value in scored.values[name]] for name in names]
    found = advantage(
        torch.tensor(scored.rewards, dtype=torch.float64),
        torch.tensor(numbers, dtype=torch.float64).T.reshape(len(group_index), len(names)),
        torch.tensor([weights[name] for name in names], dtype=torch.float64),
        torch.tensor(group_index, dtype=torch.long),
    )
    values: list[float] = found.tolist()
    return values


def divided(groups: Sequence[RolloutGroup], scored: ScoredSamples, advantages: Sequence[float]) -> list[ScoredGroup]:
    """What was scored in one go, group by group."""
    result: list[ScoredGroup] = []
    start = 0
    for group in groups:
        span = slice(start, start + len(group.rollouts))
        result.append(
            ScoredGroup(
                prompt=group.prompt,
                rollouts=group.rollouts,
                rewards=scored.rewards[span],
                reward_terms={name: terms[span] for name, terms in scored.terms.items()},
                advantages=list(advantages[span]),
                extra={name: column[span] for name, column in scored.columns.items()},
            )
        )
        start = span.stop
    return result


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def has_signal(group: ScoredGroup) -> bool:
    """Whether something can be learned from it: its rewards differ, or an advantage is a number other than 0 all the same
    (gdpo's, where terms differ that add up to one number). NaN is no advantage."""
    return _rewards_differ(group) or any(value != 0 and not math.isnan(value) for value in group.advantages)


def _rewards_differ(group: ScoredGroup) -> bool:
    rewards = [reward for reward in group.rewards if not math.isnan(reward)]
    return bool(rewards) and max(rewards) - min(rewards) > 1e-8 * max(1.0, *(abs(reward) for reward in rewards))


def is_worth_training(group: ScoredGroup, loss: Loss) -> bool:
    """Whether it has signal, or a completion that the loss imitates without any."""
    return has_signal(group) or any(_is_imitated(rollout, loss) for rollout in group.rollouts)


def _is_imitated(rollout: Rollout, loss: Loss) -> bool:
    return rollout.chosen and getattr(loss, "needs_chosen", False)


def why_nothing_trains(groups: Sequence[ScoredGroup]) -> str:
    """In words, for a step whose completions are all left out."""
    if all(math.isnan(reward) for group in groups for reward in group.rewards):
        return "no reward applies to any of its completions (None, or applies_to)"
    if not any(has_signal(group) for group in groups):
        return "in every group all completions have the same reward"
    return "every completion is masked or filtered"


def train_groups(
    groups: Sequence[ScoredGroup], loss: Loss, pairing: Pairing, *, mask_truncated: bool
) -> list[TrainGroup]:
    """What of the scored groups is trained on.

    Left out: truncated completions if masked (they still count in N), completions without a reward if the loss needs
    advantages (but not chosen ones that it imitates), completions in no pair if it needs pairs.
    """
    made = [_train_group(group, loss, mask_truncated) for group in groups]
    if loss.needs_pairs:
        made = _with_pairs(made, groups, pairing)
    return made


def _train_group(group: ScoredGroup, loss: Loss, mask_truncated: bool) -> TrainGroup:
    rows: list[TrainRow] = []
    counted = 0
    for sample, (rollout, reward, advantage) in enumerate(
        zip(group.rollouts, group.rewards, group.advantages, strict=True)
    ):
        if loss.needs_advantages and math.isnan(reward) and not _is_imitated(rollout, loss):
            continue
        counted += 1
        if not (mask_truncated and rollout.finish_reason == "length"):
            rows.append(TrainRow(rollout=rollout, advantage=advantage, sample=sample))
    return TrainGroup(
        prompt_index=group.prompt.index, prompt_ids=group.prompt.token_ids, rows=tuple(rows), num_sequences=counted
    )


def _with_pairs(made: Sequence[TrainGroup], groups: Sequence[ScoredGroup], pairing: Pairing) -> list[TrainGroup]:
    """Pairs over the whole step, then only the completions that are in one."""
    rows = [(index, row) for index, group in enumerate(made) for row in group.rows]
    rewards = torch.tensor([groups[index].rewards[row.sample] for index, row in rows], dtype=torch.float64)
    group_index = torch.tensor([index for index, _ in rows], dtype=torch.long)
    pairs = pairing(rewards, group_index).tolist() if rows else []
    result: list[TrainGroup] = []
    for index, group in enumerate(made):
        own = [(a, b) for a, b in pairs if rows[a][0] == index]
        used = sorted({place for pair in own for place in pair})
        place_of = {row: place for place, row in enumerate(used)}
        result.append(
            replace(
                group,
                rows=tuple(rows[row][1] for row in used),
                pairs=tuple((place_of[a], place_of[b]) for a, b in own),
            )
        )
    return result


def rollout_metrics(groups: Sequence[ScoredGroup]) -> dict[str, Metric]:
    """reward, reward_std (ddof 1, over the step), frac_reward_zero_std, rewards/<name>/mean, completions/*, num_tokens."""
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    lengths = [rollout.completion_ids.shape[0] for rollout in rollouts]
    rewards = [reward for group in groups for reward in group.rewards if not math.isnan(reward)]
    cut = sum(rollout.finish_reason == "length" for rollout in rollouts)
    metrics = {
        "completions/mean_length": mean(sum(lengths), len(lengths)),
        "completions/min_length": minimum(min(lengths)),
        "completions/max_length": maximum(max(lengths)),
        "completions/clipped_ratio": mean(cut, len(lengths)),
        "num_tokens": total(sum(lengths) + sum(len(group.prompt.token_ids) * len(group.rollouts) for group in groups)),
    }
    if rewards:
        centre = sum(rewards) / len(rewards)
        spread = sum((reward - centre) ** 2 for reward in rewards) / max(len(rewards) - 1, 1)
        metrics["reward"] = mean(sum(rewards), len(rewards))
        metrics["reward_std"] = mean(math.sqrt(spread), 1)
        metrics["frac_reward_zero_std"] = mean(sum(not _rewards_differ(group) for group in groups), len(groups))
    for name in groups[0].reward_terms:
        values = [value for group in groups for value in group.reward_terms[name] if value is not None]
        metrics[f"rewards/{name}/mean"] = mean(sum(values), len(values))
    return metrics | part_metrics(groups)


def part_metrics(groups: Sequence[ScoredGroup]) -> dict[str, Metric]:
    """sources/<name>/reward and sources/<name>/prompts of a mixture; nothing for a data set that is one whole."""
    metrics: dict[str, Metric] = {}
    for name in sorted({group.prompt.row.part for group in groups} - {""}):
        own = [group for group in groups if group.prompt.row.part == name]
        rewards = [reward for group in own for reward in group.rewards if not math.isnan(reward)]
        metrics[f"sources/{name}/prompts"] = total(len(own))
        if rewards:
            metrics[f"sources/{name}/reward"] = mean(sum(rewards), len(rewards))
    return metrics
