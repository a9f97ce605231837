"""The numbers of an evaluation: means with intervals, pass@k, by part, and against another model on the same prompts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pggrpo_cli.estimates import Interval, bootstrap, pass_at_k


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampled:
    """What one model's completions of P prompts were worth, n each."""

    rewards: list[list[float]]
    """[P][n]; NaN where no reward applied."""
    terms: dict[str, list[list[float | None]]]
    """Each named reward's own scores, [P][n]."""
    lengths: list[list[int]]
    """[P][n] tokens."""
    truncated: list[list[bool]]
    """[P][n]: cut by max_new_tokens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """How numbers are estimated."""

    ks: Sequence[int]
    """Of pass@k."""
    solved_at: float
    """A completion is right if its reward is at least this."""
    confidence: float
    resamples: int
    seed: int


def by_prompt(sampled: Sampled, kind: str, method: Method) -> dict[str, list[float]]:
    """Every number that is a mean over prompts, one value a prompt (NaN: none): {"greedy reward": [P], …}.

    `kind` (greedy, sampled) is the first word of their names. pass@k, for the ks that n allows, where n > 1.
    """
    values = {f"{kind} reward": [_mean(one) for one in sampled.rewards]}
    if len(sampled.terms) > 1:
        for name, scores in sampled.terms.items():
            values[f"{kind} {name}"] = [_mean([math.nan if s is None else s for s in one]) for one in scores]
    if any(len(one) > 1 for one in sampled.rewards):
        for k in method.ks:
            values[f"pass@{k}"] = [_pass(one, k, method.solved_at) for one in sampled.rewards]
    values[f"{kind} tokens"] = [_mean(one) for one in sampled.lengths]
    values[f"{kind} truncated"] = [_mean(one) for one in sampled.truncated]
    return {name: column for name, column in values.items() if not all(math.isnan(value) for value in column)}


def summary(values: Mapping[str, Sequence[float]], method: Method) -> dict[str, Interval]:
    """Means over prompts with their intervals."""
    return {name: _interval(column, method) for name, column in values.items()}


def differences(
    ours: Mapping[str, Sequence[float]], theirs: Mapping[str, Sequence[float]], method: Method
) -> dict[str, Interval]:
    """Ours − theirs, prompt by prompt: what both find hard does not blur the comparison."""
    return {
        name: _interval([a - b for a, b in zip(ours[name], theirs[name], strict=True)], method)
        for name in ours
        if name in theirs
    }


def parts(keys: Sequence[str], values: Mapping[str, Sequence[float]], method: Method) -> dict[str, dict[str, Interval]]:
    """summary for the prompts of each key apart; `keys` [P]."""
    return {key: summary(dict(_of_part(key, keys, values)), method) for key in sorted(set(keys), key=keys.index)}


def _of_part(key: str, keys: Sequence[str], values: Mapping[str, Sequence[float]]) -> Iterator[tuple[str, list[float]]]:
    for name, column in values.items():
        own = [value for value, one in zip(column, keys, strict=True) if one == key]
        if not all(math.isnan(value) for value in own):
            yield name, own


def _interval(column: Sequence[float], method: Method) -> Interval:
    known = [value for value in column if not math.isnan(value)]
    return bootstrap(known, method.confidence, method.resamples, method.seed)


def _mean(values: Sequence[float]) -> float:
    known = [float(value) for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan


def _pass(rewards: Sequence[float], k: int, solved_at: float) -> float:
    known = [reward for reward in rewards if not math.isnan(reward)]
    return math.nan if len(known) < k else pass_at_k(len(known), sum(reward >= solved_at for reward in known), k)
