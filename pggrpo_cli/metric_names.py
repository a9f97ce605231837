"""Which metrics a run will log, as far as its configuration tells (docs/metrics.md lists them all)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pggrpo_cli.suggestions import did_you_mean

# fmt: off
KNOWN = frozenset({
    "reward", "reward_std", "frac_reward_zero_std", "reward/errors", "reward_model/truncated", "implicit/truncated",
    "eval/reward", "eval/completions/mean_length", "eval/completions/clipped_ratio",
    "curriculum/mean_solved", "curriculum/measured_share",
    "completions/mean_length", "completions/min_length", "completions/max_length", "completions/clipped_ratio",
    "loss", "grad_norm", "learning_rate", "kl", "entropy", "nll", "ratio/max", "ratio/clamped_fraction",
    "clip_ratio/low_mean", "clip_ratio/high_mean", "clip_ratio/region_mean",
    "rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies", "logps/chosen", "logps/rejected",
    "sampling/sampling_logp_difference/mean", "sampling/sampling_logp_difference/max",
    "num_tokens", "updates/skipped", "memory/out_of_memory", "step_time", "time/rollout", "time/score", "time/update",
    "time/evaluation", "time/reference", "time/optimizer", "tokens_per_second", "memory/peak_gb",
})
# fmt: on
_OF_A_REWARD = re.compile(r"(?:eval/)?rewards/(?P<name>[^/]+)/mean")
_OF_A_SOURCE = re.compile(r"(?:eval/)?sources/(?P<name>[^/]+)/reward|sources/[^/]+/prompts")


def metric_problems(values: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with sweep.metric as far as that can be known before a run. A class that is not ours may log anything."""
    metric = (values.get("sweep") or {}).get("metric")
    if not isinstance(metric, str) or metric == "???":
        return
    if metric == "":
        yield "`sweep.metric`: is empty; write sweep.metric=null for eval/reward, else reward."
        return
    if re.search(r":(min|max)$", metric):
        name, _, word = metric.rpartition(":")
        yield f"`sweep.metric`: {metric!r}: the direction is a key of its own: sweep.metric={name} sweep.direction={word}imize."
        return
    if metric.startswith("eval/") and (values.get("evaluation") or {}).get("every", 1) is None:
        yield (
            f"`sweep.metric`: {metric} is of held-out prompts, and evaluation.every=null: there is none. Give "
            "evaluation.every, or sweep.metric=reward."
        )
    rewards = values.get("reward") or {}
    of_reward = _OF_A_REWARD.fullmatch(metric)
    if of_reward and isinstance(rewards, Mapping):
        if of_reward["name"] not in rewards:
            known = ", ".join(map(str, rewards)) or "none"
            meant = did_you_mean(of_reward["name"], map(str, rewards))
            yield f"`sweep.metric`: {metric} is of a reward that this run does not have.{meant} It has: {known}."
        return
    if metric in KNOWN or _OF_A_SOURCE.fullmatch(metric) or _logs_what_it_likes(values):
        return
    names = [*(f"rewards/{name}/mean" for name in rewards), *(f"eval/rewards/{name}/mean" for name in rewards), *KNOWN]
    yield (
        f"`sweep.metric`: {metric!r} is no metric.{did_you_mean(metric, names)} Such as eval/reward, reward, "
        f"{', '.join(names[: len(rewards)]) or 'loss'}; docs/metrics.md lists all."
    )


def _logs_what_it_likes(values: Mapping[str, Any]) -> bool:
    targets = [(values.get(group) or {}).get("_target_") for group in ("loss", "sampler", "order", "data")]
    return not all(str(target).startswith("pggrpo_cli.") for target in targets)
