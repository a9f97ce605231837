"""π_orig: the policy before training, frozen. Built only if the loss needs it."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn

from pggrpo_cli.packing import Packed
from pggrpo_cli.policy import Policy
from pggrpo_cli.types import StateDict

CacheKey = tuple[int, int]
"""(row of the data set, completion of the row): completions that come with the data set, and so come again."""


def frozen(policy: Policy) -> Policy:
    """`policy` itself, frozen, with the weights of its linear layers in its compute dtype.

    Embeddings (with the output head tied to them) and norms keep theirs: then the reference computes bit for bit what
    the policy computed before training, since autocast rounds exactly those weights and no others.
    """
    module = policy.module.requires_grad_(False)
    embeddings = {id(parameter) for parameter in module.get_input_embeddings().parameters()}
    for layer in module.modules():
        if isinstance(layer, nn.Linear) and id(layer.weight) not in embeddings:
            layer.to(policy.compute_dtype)
    return policy


def frozen_copy(policy: Policy, compute_dtype: torch.dtype, device: torch.device) -> Policy:
    """A frozen copy of `policy` as it is now."""
    module = copy.deepcopy(policy.module).to(device)
    if compute_dtype == torch.float32:  # over bfloat16 weights: autocast can only narrow
        module = module.to(compute_dtype)
    return frozen(Policy(module, policy.tokenizer, compute_dtype, like=policy))


class Reference:
    """log π_orig of completion tokens. Those of the data set's own completions are computed once and saved with the
    run: another packing would change their last bits."""

    def __init__(self, policy: Policy, identity: str = "") -> None:
        """`identity` says which model this is; what another one computed is not taken over from a checkpoint."""
        self._policy, self._identity = policy, identity
        self._cache: dict[CacheKey, torch.Tensor] = {}
        self._temperature: float | None = None
        """Of what is cached."""

    def logprobs(self, packed: Packed, temperature: float, keys: Sequence[CacheKey | None]) -> torch.Tensor:
        """[T] for packed.targets. `keys`: one a completion that comes with the data set, None for a sampled one."""
        if temperature != self._temperature:
            self._cache, self._temperature = {}, temperature
        if all(key in self._cache for key in keys):
            return torch.cat([self._cache[key] for key in keys if key is not None]).to(packed.targets.device)
        with torch.no_grad():
            scores = self._policy.score(packed.to(self._policy.device), temperature, with_entropy=False)
        logprobs = scores.logprobs
        if any(key is not None for key in keys):
            lengths = [completion.shape[0] for completion in packed.completion_ids]
            # The first value stays: what was used once is used always.
            logprobs = torch.cat(
                [
                    part if key is None else self._cache.setdefault(key, part.clone())
                    for key, part in zip(keys, logprobs.cpu().split(lengths), strict=True)
                ]
            )
        return logprobs.to(packed.targets.device)

    def state(self) -> StateDict:
        """The cache as three flat tensors."""
        keys = sorted(self._cache)
        if not keys:
            return {}
        return {
            "identity": self._identity,
            "temperature": self._temperature,
            "keys": torch.tensor(keys, dtype=torch.long),
            "lengths": torch.tensor([self._cache[key].shape[0] for key in keys]),
            "logprobs": torch.cat([self._cache[key] for key in keys]),
        }

    def load(self, state: StateDict) -> None:
        self._cache = {}
        if state and state.get("identity") == self._identity:
            self._temperature = state["temperature"]
            parts = state["logprobs"].split(state["lengths"].tolist())
            self._cache = {(a, b): part.clone() for (a, b), part in zip(state["keys"].tolist(), parts, strict=True)}
