"""Completions to try rewards on: of a file or a past run, typed, the data set's own, or made up. Without a model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

from pggrpo_cli.config import TrainConfig
from pggrpo_cli.errors import DataError
from pggrpo_cli.printable import printable
from pggrpo_cli.prompts import apply_format, format_of
from pggrpo_cli.records import read_jsonl
from pggrpo_cli.row_loading import load_rows
from pggrpo_cli.rows import rows_from_records
from pggrpo_cli.scoring.scorer import made_up
from pggrpo_cli.types import Dataset, FinishReason, Message, Row, Sample

RUN_KEYS = frozenset(
    {
        *("step", "held_out", "prompt_index", "sample", "prompt", "completion", "finish_reason"),
        *("reward", "reward_terms", "advantage", "extra", "prompt_ids", "completion_ids", "logprobs"),
    }
)
"""What a line of samples.jsonl says of the run: none of it is a column of the data."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One completion, and where it and its row come from."""

    sample: Sample
    label: str
    """The row of the data set (held-out ones with an h), or the line of the file for a prompt of its own."""
    line: str = ""
    """file:line of the completion; empty if it is of no file."""
    recorded: float | None = None
    """The reward that the run gave it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trials:
    """Of one group are those with the same sample.group."""

    trials: list[Trial]
    origin: str
    """Where they come from, in words."""

    @property
    def samples(self) -> list[Sample]:
        return [trial.sample for trial in self.trials]


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundRow:
    """A row of the data set with system prompt and suffix."""

    row: Row
    number: int
    held_out: bool

    @property
    def label(self) -> str:
        return f"{self.number}{'h' if self.held_out else ''}"


class Rows:
    """The rows of a configuration, loaded only if somebody asks for one."""

    def __init__(self, config: TrainConfig) -> None:
        self._config = config
        self._format = format_of(config.data)

    @cached_property
    def _dataset(self) -> Dataset:
        return load_rows(self._config)[0]

    def get(self, number: int, blame: str, held_out: bool = False) -> FoundRow:
        """Raises DataError, which begins with `blame`, if there is no such row."""
        rows = self._dataset.evaluation if held_out else self._dataset.train
        if not 0 <= number < len(rows):
            what = "held-out row" if held_out else "row"
            raise DataError(
                f"{blame}: there is no {what} {number}; the data has {len(rows)}, counted from 0. Are data and seed those "
                "that the completions come from?"
            )
        return FoundRow(row=apply_format(rows[number], self._format), number=number, held_out=held_out)

    def some(self, first: int, count: int) -> list[FoundRow]:
        """At most `count` rows to train on from `first` on; held-out ones if there are no others."""
        held_out = not self._dataset.train
        total = len(self._dataset.evaluation if held_out else self._dataset.train)
        self.get(first, "`--row`", held_out)
        return [self.get(number, "`--row`", held_out) for number in range(first, min(first + count, total))]


class _Groups:
    """Numbers for whatever makes completions belong together, in the order of their appearance."""

    def __init__(self) -> None:
        self._numbers: dict[Any, int] = {}

    def number(self, key: Any) -> int:
        return self._numbers.setdefault(key, len(self._numbers))


def of_texts(texts: Sequence[str], row: FoundRow, origin: str) -> Trials:
    """Completions of one row."""
    return Trials(trials=[Trial(sample=_sample(text, row.row), label=row.label) for text in texts], origin=origin)


def of_data(rows: Sequence[FoundRow]) -> Trials:
    """The data set's own completions, or made-up ones."""
    trials: list[Trial] = []
    own = any(found.row.completions for found in rows)
    for group, found in enumerate(rows):
        texts: list[tuple[str, float | None]] = [
            (text_of(one.content), one.preference) for one in found.row.completions
        ]
        if not own:
            texts = [(text, None) for text in made_up(found.row)]
        for text, preference in texts:
            sample = _sample(text, found.row, group=group, preference=preference, finish="offline" if own else "stop")
            trials.append(Trial(sample=sample, label=found.label))
    words = "the data set's own completions" if own else "made-up completions: nothing, 0, and the row's answer"
    return Trials(trials=trials, origin=f"{words}, of {len(rows)} rows")


def of_file(path: str, rows: Rows, row: int, limit: int | None) -> Trials:
    """One completion a line of JSON, at most `limit` of them. A line says which prompt it answers: `prompt` (as it
    stands), `row` (a number), or prompt_index (samples.jsonl of a run); else it is for the row `row`. Further keys are
    columns, over those of the row. Raises ConfigError, DataError."""
    groups = _Groups()
    trials: list[Trial] = []
    for line, record in read_jsonl(path, "--completions"):
        if limit is not None and len(trials) >= limit:
            break
        trials.append(_of_record(line, dict(record), rows, row, groups))
    if not trials:
        raise DataError(f"`--completions`: {path} holds no completions.")
    return Trials(trials=trials, origin=f"{path}, {len(trials)} completions")


def typed_in(row: FoundRow, read: Callable[[str], str], say: Callable[[str], None]) -> list[str]:
    """What a person types, one line a completion, until an empty line."""
    say(f"row {row.label}: {printable(text_of(row.row.prompt))}")
    say("One line a completion; an empty line ends.")
    texts: list[str] = []
    while True:
        try:
            text = read("> ")
        except EOFError:
            return texts
        if not text:
            return texts
        texts.append(text)


def text_of(content: str | Sequence[Message]) -> str:
    """Text as it is; of messages the contents, where they are text."""
    if isinstance(content, str):
        return content
    return "\n".join(one["content"] for one in content if isinstance(one.get("content"), str))


def run_of(path: str) -> Path | None:
    """The run that a samples.jsonl belongs to."""
    file = Path(path).expanduser()
    return file.parent if file.name == "samples.jsonl" and (file.parent / "config.yaml").is_file() else None


def _of_record(line: str, record: dict[str, Any], rows: Rows, row: int, groups: _Groups) -> Trial:
    completion = _completion(line, record)
    if "prompt_index" in record and "reward_terms" in record:
        return _of_run(line, completion, record, rows, groups)
    known_finish = record.get("finish_reason") in get_args(FinishReason)
    finish = record.pop("finish_reason") if known_finish else "stop"  # another vocabulary stays a column
    keys: dict[str, Any] = {"finish": finish, "token_ids": _token_ids(line, record)}
    if "prompt" in record:
        (own,) = rows_from_records([(line, record)], {}, as_chat=False, need_preference=False)
        group = groups.number(json.dumps(own.prompt, sort_keys=True))
        return Trial(
            sample=_sample(completion, own, group=group, **keys), label=f"line {line.rpartition(':')[2]}", line=line
        )
    number = record.pop("row", row)
    if not isinstance(number, int) or isinstance(number, bool):
        raise DataError(f"{line}: column 'row' is {number!r}; allowed is the number of a row of the data, from 0.")
    found = rows.get(number, line)
    joined = Row(prompt=found.row.prompt, columns=found.row.columns | record, source=line)
    sample = _sample(completion, joined, group=groups.number((False, number)), **keys)
    return Trial(sample=sample, label=found.label, line=line)


def _of_run(line: str, completion: str, record: Mapping[str, Any], rows: Rows, groups: _Groups) -> Trial:
    """A line that a run wrote: the row's columns come from the data."""
    number, held_out, step = record["prompt_index"], bool(record.get("held_out")), record.get("step") or 0
    found = rows.get(number, line, held_out)
    asked = text_of(found.row.prompt if isinstance(found.row.prompt, str) else found.row.prompt[-1:]).strip()
    if asked not in str(record["prompt"]):
        raise DataError(
            f"{line}: its prompt is not that of row {found.label} of the data. Give the data and the seed of the run: "
            "data=… data.KEY=… seed=…"
        )
    sample = _sample(
        completion,
        Row(
            prompt=found.row.prompt, columns=found.row.columns | {k: v for k, v in record.items() if k not in RUN_KEYS}
        ),
        group=groups.number((held_out, number, step)),
        finish=record.get("finish_reason", "stop"),
        step=step,
        token_ids=_token_ids(line, dict(record)),
    )
    return Trial(sample=sample, label=found.label, line=line, recorded=record.get("reward"))


def _completion(line: str, record: dict[str, Any]) -> str:
    if "completion" not in record:
        raise DataError(
            f"{line}: there is no column 'completion'; the columns are {', '.join(map(repr, record)) or 'none'}."
        )
    completion = record.pop("completion")
    if isinstance(completion, str):
        return completion
    if isinstance(completion, list) and all(isinstance(one, dict) for one in completion):
        return text_of(completion)
    raise DataError(
        f"{line}: column 'completion' is {type(completion).__name__}; allowed are text or a list of messages."
    )


def _token_ids(line: str, record: dict[str, Any]) -> list[int] | None:
    ids = record.pop("completion_ids", None)
    if ids is not None and not (isinstance(ids, list) and all(type(one) is int for one in ids)):
        raise DataError(f"{line}: column 'completion_ids' must be a list of whole numbers.")
    return ids


def _sample(
    text: str,
    row: Row,
    *,
    group: int = 0,
    finish: FinishReason = "stop",
    step: int = 0,
    preference: float | None = None,
    token_ids: list[int] | None = None,
) -> Sample:
    return Sample(
        prompt=row.prompt,
        completion=text,
        # No tokenizer is loaded: a byte stands for a token, so that rewards of length have something to count.
        completion_ids=list(text.encode("utf-8", "surrogatepass")) if token_ids is None else token_ids,
        finish_reason=finish,
        columns=row.columns,
        preference=preference,
        step=step,
        group=group,
    )
