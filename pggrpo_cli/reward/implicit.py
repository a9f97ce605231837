"""reward=implicit: DPO's implicit reward of a second model, or of a pair of models, as a score."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch

from pggrpo_cli.batching import TrainGroup, TrainRow, micro_batches
from pggrpo_cli.chat_template import use_chat_template
from pggrpo_cli.errors import ConfigError
from pggrpo_cli.packing import Packed
from pggrpo_cli.policy import Policy
from pggrpo_cli.prompts import tokenise
from pggrpo_cli.ranges import Range
from pggrpo_cli.reference import frozen
from pggrpo_cli.scoring.second_models import foreseen, frozen_bytes, placed, size
from pggrpo_cli.types import OfflineCompletion, RewardContext, Rollout, Row, Sample, ScoreError, Scores
from pggrpo_cli.weights import load_model

KEY = "reward.implicit"


@dataclass(frozen=True, kw_only=True)
class Implicit:
    """Rafailov et al. 2023 (arXiv 2305.18290), section 5: the reward that a model trained by DPO stands for,

        r(y, x) = β log[π(y|x)/π_ref(y|x)] = β Σ_t ( log π(y_t|x, y_<t) − log π_ref(y_t|x, y_<t) ),

    over the tokens of the completion and its end token, at temperature 1; π is the model `path`, π_ref that of
    `reference_path`, the one π was trained from. Without it π_ref is uniform: its term is left out, as with dpo's
    reference_free. length_normalized: divided by the number of those tokens.

    The text is tokenised anew, by the tokenizer and the chat template of π: it need not be the policy's. A completion that
    was cut by max_new_tokens has no end token. A prompt too long for the context loses its beginning; a completion too
    long for it cannot be scored (`on_error`).
    """

    path: str
    reference_path: str | None
    beta: Annotated[float, Range(gt=0)]
    length_normalized: bool
    chat_template: str | None
    dtype: Literal["auto", "float32", "bfloat16"]
    device: str | None
    batch_tokens: Annotated[int, Range(ge=1)]

    @contextmanager
    def open(self, context: RewardContext) -> Iterator[OpenImplicit]:
        """Loads both models once. Raises ConfigError if they do not share a vocabulary."""
        dtype, device = placed(self.dtype, self.device, context, KEY)
        policy = _loaded(self.path, f"{KEY}.path", dtype, device)
        use_chat_template(policy.tokenizer, self.chat_template, f"{KEY}.chat_template")
        reference = None
        if self.reference_path is not None:
            reference = _loaded(self.reference_path, f"{KEY}.reference_path", dtype, device)
            _same_vocabulary(self, policy, reference)
        yield OpenImplicit(self, policy, reference)

    def model_bytes(self, run_device: torch.device) -> int:
        """Of the weights of both models beside the run's, before any is read. Raises ConfigError if one is not there."""
        dtype = foreseen(self.dtype, self.device, run_device, KEY)
        if dtype is None:
            return 0
        paths = {f"{KEY}.path": self.path, f"{KEY}.reference_path": self.reference_path}
        return sum(frozen_bytes(path, key, dtype) for key, path in paths.items() if path is not None)


class OpenImplicit:
    """The models at work: packed, without padding and without gradient."""

    def __init__(self, settings: Implicit, policy: Policy, reference: Policy | None) -> None:
        self._settings, self._policy, self._reference = settings, policy, reference
        self._context = min(one.context_length for one in self._models)

    @property
    def _models(self) -> list[Policy]:
        return [self._policy] if self._reference is None else [self._policy, self._reference]

    def describe(self) -> str:
        """For the plan."""
        settings, precision = self._settings, str(self._policy.compute_dtype).removeprefix("torch.")
        against = "a uniform π_ref" if settings.reference_path is None else f"π_ref {settings.reference_path}"
        words = (
            f"{settings.path} against {against}, {size(*(one.module for one in self._models))}, {precision} on "
            f"{self._policy.device}"
        )
        slow = [one.packable_reason for one in self._models if one.packable_reason is not None]
        return f"{words}; slower: sequence by sequence ({slow[0]})" if slow else words

    def score(self, samples: Sequence[Sample]) -> Scores:
        members: dict[int, list[int]] = {}
        for place, sample in enumerate(samples):
            members.setdefault(sample.group, []).append(place)
        scores: list[float | ScoreError | None] = [
            ScoreError(
                message=f"has more tokens than the model's context of {self._context}, with none left for the prompt"
            )
        ] * len(samples)
        groups: list[TrainGroup] = []
        truncated = 0
        for places in members.values():
            group, cut = self._group(samples, places)
            groups.append(group)
            truncated += cut * len(group.rows)
        for micro in micro_batches(groups, self._settings.batch_tokens):
            for row, value in zip(micro.rows, self._rewards(micro.packed), strict=True):
                scores[row.sample] = value
        note = f"prompts too long for the model's context of {self._context} tokens lose their beginning; implicit/truncated"
        return Scores(
            scores=scores,
            metrics={"implicit/truncated": truncated / max(len(samples), 1)},
            notes=[f"{note} counts them."] if truncated else [],
        )

    def _group(self, samples: Sequence[Sample], places: Sequence[int]) -> tuple[TrainGroup, bool]:
        """(a prompt with those of its completions that fit into the context, whether the prompt had to be cut)."""
        row = Row(
            prompt=samples[places[0]].prompt,
            completions=tuple(_offline(samples[place]) for place in places),
            source=f"rows of {KEY}",
        )
        _, prompt_ids, completions = tokenise(row, self._policy.tokenizer, self._policy.end_token_ids, KEY)
        rows: list[TrainRow] = []
        for place, ids in zip(places, completions, strict=True):
            cut_short = samples[place].finish_reason == "length"
            ids = ids[:-1] if cut_short and len(ids) > 1 and ids[-1] in self._policy.end_token_ids else ids
            if len(ids) < self._context:
                rollout = Rollout(completion_ids=torch.tensor(ids), logprobs=None, text="", finish_reason="offline")
                rows.append(TrainRow(rollout=rollout, advantage=0.0, sample=place))
        room = self._context - max((row.rollout.completion_ids.shape[0] for row in rows), default=0)
        group = TrainGroup(
            prompt_index=0, prompt_ids=tuple(prompt_ids[-room:]), rows=tuple(rows), num_sequences=len(rows)
        )
        return group, len(prompt_ids) > room

    def _rewards(self, packed: Packed) -> list[float]:
        packed = packed.to(self._policy.device)
        with torch.inference_mode(), torch.autocast(self._policy.device.type, enabled=False):
            log_ratios = self._policy.score(packed, 1.0, with_entropy=False).logprobs.cpu().double()
            if self._reference is not None:
                log_ratios -= self._reference.score(packed, 1.0, with_entropy=False).logprobs.cpu().double()
        lengths = torch.tensor([completion.shape[0] for completion in packed.completion_ids])
        sums = torch.zeros(len(lengths), dtype=torch.float64).index_add(0, packed.sequence_index.cpu(), log_ratios)
        if self._settings.length_normalized:
            sums = sums / lengths
        rewards: list[float] = (self._settings.beta * sums).tolist()
        return rewards


def _offline(sample: Sample) -> OfflineCompletion:
    """As a data set would bring it."""
    text: Any = sample.completion
    if not isinstance(sample.prompt, str):
        text = [{"role": "assistant", "content": text}]
    return OfflineCompletion(content=text, preference=None)


def _loaded(path: str, key: str, dtype: torch.dtype, device: torch.device) -> Policy:
    loaded = load_model(path, None, key)
    return frozen(Policy(loaded.module.to(device), loaded.tokenizer, dtype))


def _same_vocabulary(settings: Implicit, policy: Policy, reference: Policy) -> None:
    own, other = policy.tokenizer.get_vocab(), reference.tokenizer.get_vocab()
    different = sorted(token for token in {*own, *other} if own.get(token) != other.get(token))
    if different:
        raise ConfigError(
            f"`{KEY}.reference_path`: {settings.reference_path} and {settings.path} do not share a vocabulary "
            f"({len(other)} and {len(own)} tokens; {len(different)} differ, such as {different[0]!r}). Give the model that "
            "path was trained from, or null for a uniform reference."
        )
