"""A model that answers prompts for `pggrpo generate`: loaded and sampled as in a run, each token told as it is drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import transformers

from pggrpo_cli.check import check_foreign_targets
from pggrpo_cli.config import TrainConfig
from pggrpo_cli.devices import prepare_device, resolve_device
from pggrpo_cli.errors import DataError, PggrpoError
from pggrpo_cli.generating.given_prompts import as_message, places
from pggrpo_cli.generating.text_stream import Display, InOrder
from pggrpo_cli.instantiate import component
from pggrpo_cli.loading import held_out_sampler, load_policy
from pggrpo_cli.policy import Policy
from pggrpo_cli.prompts import PromptFormat, Renderer, format_of, prompt_room
from pggrpo_cli.protocols import OpenSampler, StreamingSampler
from pggrpo_cli.row_loading import load_rows
from pggrpo_cli.subject import SPEAKS, Subject
from pggrpo_cli.types import Dataset, DrawKey, Prompt, RolloutGroup, Row, RunContext

WITHOUT_A_RUN = 512
"""New tokens of a model that is no run's, unless somebody says: the 24 of `pggrpo train` are for its own questions."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wishes:
    """How it is to answer; see `pggrpo generate --help`."""

    samples: int
    greedy: bool
    seed: int | None
    max_new_tokens: int | None
    """None: the run's; of a model that is no run's, WITHOUT_A_RUN unless `length_given`."""
    length_given: bool
    """Whether the line has sampler.max_new_tokens=…"""
    system: str | None
    """None: the run's."""
    raw: bool


class Answering:
    """A loaded model with its open sampler."""

    def __init__(self, policy: Policy, sampler: OpenSampler, config: TrainConfig, limit: int, wishes: Wishes) -> None:
        self.policy, self._sampler, self._config, self.limit, self._wishes = policy, sampler, config, limit, wishes
        self._asked = 0

    def given(self, row: Row, *, chat: bool, of_run: bool) -> Prompt:
        """A prompt of the user's: with --raw as it stands, else with the system prompt (and the run's suffix), as a user's
        message if `chat`. Raises DataError if it is too long."""
        keys = format_of(self._config.data)
        system = self._wishes.system if self._wishes.system is not None else keys.system_prompt if of_run else None
        suffix = keys.prompt_suffix if of_run else ""
        if self._wishes.raw:
            system, suffix = None, ""
        own = PromptFormat(system_prompt=system or None, prompt_suffix=suffix, max_prompt_tokens=None, overlong="error")
        row = replace(as_message(row) if chat else row, completions=())
        renderer = self._renderer(own)
        prompt = renderer.whole(row, self._asked)
        if len(prompt.token_ids) > renderer.limit:
            raise DataError(
                f"`{row.source}`: has {len(prompt.token_ids)} tokens; the model's context of "
                f"{self.policy.context_length} leaves {renderer.limit} beside {self.limit} new ones. Shorten it, or lower "
                "--max-new-tokens."
            )
        return prompt

    def of_data(self, rows: Sequence[Row], numbers: Sequence[int]) -> list[Prompt]:
        """Rows of the data set as the run renders them; `numbers`: their places in it. Raises DataError for what is too
        long."""
        keys = format_of(self._config.data)
        if self._wishes.system is not None:
            keys = replace(keys, system_prompt=self._wishes.system or None)
        renderer = self._renderer(keys)
        prompts = [
            renderer.fitted(replace(row, completions=()), number) for row, number in zip(rows, numbers, strict=True)
        ]
        for number, prompt in zip(numbers, prompts, strict=True):
            if prompt is None:
                raise DataError(
                    f"`--rows`: row {number} is too long for the model's context and is left out in training too. Give "
                    "others, or lower --max-new-tokens."
                )
        return [prompt for prompt in prompts if prompt is not None]

    def answer(self, prompts: Sequence[Prompt], display: Display) -> None:
        """Shows what the model says to each of them. Other prompts, or the same ones again, get other random numbers."""
        seed = self._config.seed if self._wishes.seed is None else self._wishes.seed
        draws = DrawKey(seed=seed, purpose="generate", step=0, first_ordinal=self._asked)
        self._asked += len(prompts)
        shown = InOrder(display, self._decoded, len(prompts), self._wishes.samples)
        if isinstance(self._sampler, StreamingSampler):
            self._sampler.stream(self.policy, prompts, draws, shown)
            return

        def whole(ordinal: int, group: RolloutGroup) -> None:
            for sample, rollout in enumerate(group.rollouts):
                shown(ordinal, sample, rollout.completion_ids.tolist(), rollout.finish_reason)

        for ordinal, group in enumerate(self._sampler.sample(self.policy, prompts, draws, whole)):
            whole(ordinal, group)  # a sampler need not have told; what was shown is not shown again

    @property
    def suffix(self) -> str:
        """The run's."""
        return format_of(self._config.data).prompt_suffix

    def chats(self, perhaps_plain: bool, say: Callable[[str], None]) -> bool:
        """Whether a text is to be a user's message: where the tokenizer has a chat template, unless the run's own prompts
        are plain texts, or --raw. `perhaps_plain`: the data are loaded to see; the caller has checked whose code that is.
        """
        if self._wishes.raw or getattr(self.policy.tokenizer, "chat_template", None) is None:
            return False
        if not perhaps_plain:
            return True
        try:
            data = load_rows(self._config)[0]
            first = next(iter(data.train[:1] or data.evaluation[:1]), None)
        except PggrpoError as error:  # the data may have moved, and an answer does not need them
            say(f"taken as a user's message (--raw: as it stands), for the run's prompts cannot be looked at: {error}")
            return True
        return first is None or not isinstance(first.prompt, str)

    def _renderer(self, keys: PromptFormat) -> Renderer:
        return Renderer(
            tokenizer=self.policy.tokenizer,
            prompt_format=keys,
            context_limit=prompt_room(self.policy.context_length, self.limit, "--max-new-tokens"),
            end_token_ids=self.policy.end_token_ids,
        )

    def _decoded(self, token_ids: Sequence[int]) -> str:
        text: str = self.policy.tokenizer.decode(token_ids, skip_special_tokens=True)
        return text


@contextmanager
def answering(subject: Subject, wishes: Wishes, say: Callable[[str], None]) -> Iterator[Answering]:
    """Raises PggrpoError for a configuration or a model that cannot be used."""
    config = subject.config
    check_foreign_targets(config, SPEAKS)
    transformers.utils.logging.disable_progress_bar()
    device = resolve_device(config.device)
    prepare_device(device)
    template = component(config.sampler, "sampler")
    policy, source = load_policy(config, device)
    limit = _limit(subject, wishes, policy.context_length)
    temperature = 0.0 if wishes.greedy else float(config.sampler["temperature"])
    sampler = held_out_sampler(template, wishes.samples, temperature, limit)
    context = RunContext(run_dir=None, device=device, seed=config.seed, run_id="generate", resumed=False)  # type: ignore[arg-type]
    say(f"{subject.label} ({source}), {str(policy.compute_dtype).removeprefix('torch.')} on {device}")
    with sampler.open(context) as opened:
        yield Answering(policy, opened, config, limit, wishes)


def _limit(subject: Subject, wishes: Wishes, context_length: int) -> int:
    config = subject.config
    if wishes.max_new_tokens is not None:
        return wishes.max_new_tokens
    if subject.run_dir is None and not wishes.length_given:
        return min(WITHOUT_A_RUN, context_length // 2)
    own: Any = config.sampler.get("max_new_tokens") or config.evaluation.max_new_tokens
    return int(own) if own is not None else min(WITHOUT_A_RUN, context_length // 2)


def chosen_rows(config: TrainConfig, split: str, rows: str) -> tuple[Dataset, list[Row], list[int]]:
    """(the data set, the rows that --rows means, their places in their split). Raises DataError, UsageError."""
    data = load_rows(config)[0]
    of_split = data.evaluation if split == "evaluation" else data.train
    if not of_split:
        raise DataError("`data`: holds no rows out. Give data.eval_size=…, or --split train.")
    numbers = places(rows, len(of_split), "held-out rows" if split == "evaluation" else "rows to train on")
    return data, [of_split[number] for number in numbers], numbers
