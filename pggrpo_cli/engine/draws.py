"""Keyed random numbers: derived, not carried.

A number depends on (seed, purpose, step, ordinal of the prompt in the step, sample, position, token) alone, never on
the row, batch, thread or worker. So resume, compaction, micro-batching and a retry draw the same numbers, on any device.
"""

from __future__ import annotations

import hashlib

import torch

from pggrpo_cli.types import DrawKey

TOP_TOKENS = 256
"""Tokens that get a Gumbel number of their own; the rest of the vocabulary shares one."""

GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as int64: splitmix64's increment
REST = 0x5DEECE66D


def row_key(draws: DrawKey, ordinal: int, sample: int) -> int:
    """A 64-bit key of one completion; `ordinal` counts within the call, `draws.first_ordinal` is added."""
    text = f"{draws.seed}|{draws.purpose}|{draws.step}|{draws.first_ordinal + ordinal}|{sample}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)


def _shift(value: torch.Tensor, bits: int) -> torch.Tensor:
    """Logical right shift of int64."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _mix(value: torch.Tensor) -> torch.Tensor:
    """splitmix64's finaliser (Steele, Lea & Flood 2014) on int64 [...]: every input bit moves every output bit."""
    value = (value ^ _shift(value, 30)) * -4658895280553007687  # 0xBF58476D1CE4E5B9
    value = (value ^ _shift(value, 27)) * -7723592293110705685  # 0x94D049BB133111EB
    return value ^ _shift(value, 31)


def position_keys(keys: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Row keys int64 [B] and positions int64 [B] → keys int64 [B] of these draws."""
    return _mix(keys + (positions + 1) * GOLDEN)


def _gumbel(keys: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
    """Standard Gumbel numbers, float64, one for each (key, item)."""
    bits = _shift(_mix(_mix(keys ^ (items * GOLDEN)) + GOLDEN), 11)
    uniform = (bits.double() + 0.5) * 2.0**-53
    return -torch.log(-torch.log(uniform))


def keyed_categorical(logprobs: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Draws from exp(logprobs): int64 [B].

    logprobs [B, V] = log_softmax of something (−inf allowed), keys int64 [B]. Gumbel-max: argmax of
    logprob_v + g_v has that law. The largest TOP_TOKENS of them get numbers keyed by their token id, so that
    rounding can flip a near-tie but not amplify it; the maximum over all other tokens is itself a Gumbel number
    shifted by the log of their mass, so one draw stands for them, and only if it wins they are drawn from.
    """
    vocabulary = logprobs.shape[1]
    top, ids = logprobs.topk(min(TOP_TOKENS, vocabulary), dim=1, sorted=False)
    scores = top.double() + _gumbel(keys[:, None], ids)
    best, winner = scores.max(1)
    tokens = ids.gather(1, winner[:, None]).squeeze(1)
    if vocabulary <= TOP_TOKENS:
        return tokens
    rest_mass = 1 - top.double().exp().sum(1)
    rest = rest_mass.clamp_min(0).log() + _gumbel(keys, torch.full_like(keys, vocabulary))
    for row in (rest > best).nonzero().flatten().tolist():
        others = logprobs[row].double().index_fill(0, ids[row], float("-inf"))
        if not bool(others.isfinite().any()):
            continue  # truncated away: the mass was a rounding error
        items = torch.arange(vocabulary, device=logprobs.device)
        tokens[row] = (others + _gumbel(_mix(keys[row] + REST), items)).argmax()
    return tokens
