"""What a run would see of its data: rows, columns, lengths, what is left out; without the model's weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pggrpo_cli.chat_template import use_chat_template
from pggrpo_cli.check import check_foreign_targets
from pggrpo_cli.config import RewardSettings, TrainConfig
from pggrpo_cli.filters import Sieve, row_digest
from pggrpo_cli.instantiate import component
from pggrpo_cli.lazy_rows import LazyRows
from pggrpo_cli.model_outline import ModelOutline, outline_of
from pggrpo_cli.prompts import Renderer, format_of, prompt_room
from pggrpo_cli.row_loading import load_rows
from pggrpo_cli.scoring.scorer import reward_settings
from pggrpo_cli.types import Dataset, Prompt, Row, Sample

TOKENISED = 4096
"""More rows than that are represented by so many, spread evenly over them: for lengths alone."""
EXAMPLES = 2
LONGEST_EXAMPLE = 60


@dataclass(kw_only=True, slots=True)
class Column:
    """A column over all rows to train on."""

    types: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, slots=True)
class Lengths:
    """Of tokens."""

    minimum: int
    median: int
    p95: int
    maximum: int
    values: list[int]

    @classmethod
    def of(cls, values: Iterable[int]) -> Lengths | None:
        ordered = sorted(values)
        if not ordered:
            return None
        last = len(ordered) - 1
        return cls(
            minimum=ordered[0],
            median=ordered[last // 2],
            p95=ordered[round(0.95 * last)],
            maximum=ordered[-1],
            values=ordered,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownCompletion:
    """A completion of the data set: all its tokens train, the end token too."""

    label: str
    text: str
    tokens: list[tuple[int, str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownRow:
    """A row as the model would see it."""

    source: str
    text: str
    tokens: list[tuple[int, str]]
    """(id, text) of the whole prompt, also where it is too long."""
    completions: list[ShownCompletion]
    columns: dict[str, Any]
    fate: str
    """What becomes of it if it is too long; empty if it is not."""
    room: int
    """Tokens that its prompt may have, beside its completions."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Preview:
    """Counts are of all rows; lengths and what is overlong of those tokenised."""

    train: int
    held_out: int
    streaming: bool
    read: int
    left_out: dict[str, int]
    columns: dict[str, Column]
    duplicates: int
    """Rows to train on with the prompt and the completions of an earlier one."""
    not_scored: dict[str, int]
    """Rows that a reward does not apply to, by its name."""
    without_reward: int
    """Rows that no reward applies to."""
    tokenised: int
    prompts: Lengths
    completions: Lengths | None
    context: int
    max_new_tokens: int | None
    room: int
    """Tokens that a prompt may have."""
    overlong: dict[str, int]
    """Rows that are too long by what becomes of them: dropped, cut from the left, an error."""
    rows: list[ShownRow]


def collect(config: TrainConfig, shown: int) -> Preview:
    """Raises PggrpoError as a run would before its model loads."""
    check_foreign_targets(config)
    rows, sieve = load_rows(config)
    model = outline_of(component(config.model, "model"))
    use_chat_template(model.tokenizer, config.model["chat_template"], "model.chat_template")
    new_tokens = config.sampler.get("max_new_tokens")
    renderer = Renderer(
        tokenizer=model.tokenizer,
        prompt_format=format_of(config.data),
        context_limit=prompt_room(model.context_length, new_tokens or 0, "sampler.max_new_tokens"),
        end_token_ids=model.end_token_ids,
    )
    return _preview(config, rows, sieve, model, renderer, shown)


def _preview(
    config: TrainConfig, rows: Dataset, sieve: Sieve, model: ModelOutline, renderer: Renderer, shown: int
) -> Preview:
    train = rows.train
    settings = {name: reward_settings(config, name) for name in config.reward}
    columns, duplicates, not_scored, without_reward = _counted(train, settings)
    count = min(TOKENISED, len(train))
    prompts = [renderer.whole(train[place], place) for place in (n * len(train) // count for n in range(count))]
    lengths = Lengths.of(len(prompt.token_ids) for prompt in prompts)
    assert lengths is not None  # a data set without rows was refused
    return Preview(
        train=len(train),
        held_out=len(rows.evaluation),
        streaming=isinstance(train, LazyRows),
        read=sieve.seen,
        left_out=dict(sieve.dropped),
        columns=columns,
        duplicates=duplicates,
        not_scored=not_scored,
        without_reward=without_reward,
        tokenised=count,
        prompts=lengths,
        completions=Lengths.of(len(ids) for prompt in prompts for ids in prompt.completion_ids),
        context=model.context_length,
        max_new_tokens=config.sampler.get("max_new_tokens"),
        room=renderer.limit,
        overlong=dict(Counter(fate for prompt in prompts if (fate := _fate(prompt, renderer)))),
        rows=[_shown(renderer.whole(train[place], place), renderer) for place in range(min(shown, len(train)))],
    )


def _counted(
    rows: Sequence[Row], settings: dict[str, RewardSettings]
) -> tuple[dict[str, Column], int, dict[str, int], int]:
    """(columns, duplicates, rows a reward does not apply to, rows without any) in one pass."""
    columns: dict[str, Column] = {}
    digests: set[bytes] = set()
    not_scored: Counter[str] = Counter()
    without = 0
    for row in rows:
        digests.add(row_digest(row))
        for name, value in {"prompt": row.prompt, **row.columns}.items():
            column = columns.setdefault(name, Column())
            messages = name == "prompt" and isinstance(value, list)
            column.types["messages" if messages else _type_of(value)] += 1
            example = str(value)[:LONGEST_EXAMPLE]
            if len(column.examples) < EXAMPLES and value is not None and example not in column.examples:
                column.examples.append(example)
        sample = Sample(prompt="", completion="", completion_ids=[], finish_reason="stop", columns=row.columns)
        missed = [name for name, one in settings.items() if not one.applies(sample)]
        not_scored.update(missed)
        without += len(missed) == len(settings)
    for column in columns.values():
        if column.types.total() < len(rows):
            column.types["missing"] = len(rows) - column.types.total()
    return columns, len(rows) - len(digests), dict(not_scored), without


def _shown(prompt: Prompt, renderer: Renderer) -> ShownRow:
    tokenizer = renderer.tokenizer
    labels = {1.0: "chosen", 0.0: "rejected", None: "completion"}
    completions = [
        ShownCompletion(
            label=labels.get(one.preference, "completion"),
            text=tokenizer.decode(ids, skip_special_tokens=False),
            tokens=_tokens(ids, tokenizer),
        )
        for one, ids in zip(prompt.row.completions, prompt.completion_ids, strict=True)
    ]
    return ShownRow(
        source=prompt.row.source,
        text=prompt.text,
        tokens=_tokens(prompt.token_ids, tokenizer),
        completions=completions,
        columns=prompt.row.columns,
        fate=_fate(prompt, renderer),
        room=max(renderer.room(prompt), 0),
    )


def _tokens(ids: Sequence[int], tokenizer: Any) -> list[tuple[int, str]]:
    return [(token, tokenizer.decode([token], skip_special_tokens=False)) for token in ids]


def _fate(prompt: Prompt, renderer: Renderer) -> str:
    """What becomes of a prompt that is too long; empty for one that is not. See Renderer.fitted."""
    room = renderer.room(prompt)
    if len(prompt.token_ids) <= room:
        return ""
    overlong = renderer.prompt_format.of(prompt.row).overlong
    if overlong == "drop":
        return "dropped"
    return "cut from the left" if overlong == "truncate_left" and room > 0 else "an error"


def _type_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true/false"
    if isinstance(value, (int, float)):
        return "number"
    names: dict[type, str] = {str: "text", list: "list", dict: "mapping"}
    return names.get(type(value), type(value).__name__)
