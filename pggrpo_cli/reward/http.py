"""reward=http: a server of yours scores. The protocol stands in docs/rewards.md."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from pggrpo_cli.errors import DataError
from pggrpo_cli.ranges import Range
from pggrpo_cli.scoring.server import Patience, Server
from pggrpo_cli.types import RewardContext, Sample, ScoreError, Scores


@dataclass(frozen=True, kw_only=True)
class Http:
    """POST {"prompts", "completions", "columns"} to `url`, at most `request_size` completions in one (None: all);
    the answer is {"scores": [number or null, …]} and may bring "columns".

    `headers_env`: header → name of the environment variable that holds all of its value. `columns`: those that are sent;
    None: all.
    """

    url: str
    headers_env: dict[str, str]
    columns: list[str] | None
    request_size: Annotated[int | None, Range(ge=1)]
    concurrency: Annotated[int, Range(ge=1, le=256)]
    retries: Annotated[int, Range(ge=0)]
    deadline_s: Annotated[float, Range(gt=0)]
    backoff_s: Annotated[float, Range(gt=0)]

    @contextmanager
    def open(self, context: RewardContext) -> Iterator[OpenHttp]:
        """Raises Unavailable if nothing listens at `url`."""
        patience = Patience(
            retries=self.retries, deadline_s=self.deadline_s, backoff_s=self.backoff_s, concurrency=self.concurrency
        )
        server = Server("reward.http", self.url, {name: ("", one) for name, one in self.headers_env.items()}, patience)
        server.refuse_unreachable()
        yield OpenHttp(self, server)


class OpenHttp:
    """The reward at work."""

    def __init__(self, settings: Http, server: Server) -> None:
        self._settings, self._server = settings, server

    def score(self, samples: Sequence[Sample]) -> Scores:
        size = self._settings.request_size or max(1, len(samples))
        chunks = [samples[start : start + size] for start in range(0, len(samples), size)]
        names = self._columns(samples)
        answers = self._server.ask([self._question(chunk, names) for chunk in chunks])
        scores: list[Any] = []
        columns: dict[str, list[Any]] = {}
        for chunk, answer in zip(chunks, answers, strict=True):
            read = answer if isinstance(answer, ScoreError) else self._read(answer, len(chunk))
            if isinstance(read, ScoreError):
                scores += [read] * len(chunk)
                continue
            for name, values in read.columns.items():
                column = columns.setdefault(name, [None] * len(samples))
                column[len(scores) : len(scores) + len(chunk)] = values
            scores += read.scores
        return Scores(scores=scores, columns=columns)

    def describe(self) -> str:
        """For the plan."""
        return f"asks {self._server.shown}"

    def _columns(self, samples: Sequence[Sample]) -> list[str]:
        """Those that are sent. A part of a mixture may lack one; raises DataError for one that all lack."""
        there = sorted({name for sample in samples for name in sample.columns})
        names = self._settings.columns
        if names is None:
            return there
        missing = [name for name in names if name not in there]
        if missing and samples:
            raise DataError(
                f"`reward.http.columns`: the rows have no column {missing[0]!r}; they have "
                f"{', '.join(map(repr, there)) or 'none beside the prompt'}."
            )
        return names

    def _question(self, samples: Sequence[Sample], names: Sequence[str]) -> dict[str, Any]:
        return {
            "prompts": [sample.prompt for sample in samples],
            "completions": [sample.completion for sample in samples],
            "columns": {name: [_jsonable(name, sample.columns.get(name)) for sample in samples] for name in names},
        }

    def _read(self, answer: Any, count: int) -> Scores | ScoreError:
        shown = self._server.shown
        scores = answer.get("scores") if isinstance(answer, dict) else None
        if not isinstance(scores, list):
            return ScoreError(message=f'{shown}: the answer has no list "scores": {str(answer)[:80]!r}')
        if len(scores) != count:
            return ScoreError(message=f"{shown}: gave {len(scores)} scores for {count} completions; one each is needed")
        columns = answer.get("columns", {})
        if not isinstance(columns, dict) or any(
            not isinstance(one, list) or len(one) != count for one in columns.values()
        ):
            return ScoreError(message=f'{shown}: "columns" must hold lists of {count} entries, one a completion')
        return Scores(scores=scores, columns=columns)


def _jsonable(name: str, value: Any) -> Any:
    """Dates and decimals as text. NaN, which JSON does not know, raises DataError."""
    try:
        return json.loads(json.dumps(value, allow_nan=False, default=_text))
    except ValueError as error:
        raise DataError(
            f"`reward.http.columns`: the column {name!r} holds {value!r:.60}, which JSON does not know. Leave the column "
            "out with reward.http.columns=[…]."
        ) from error


def _text(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
