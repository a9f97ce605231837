"""reward=judge: another model judges, behind any OpenAI-compatible server."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pggrpo_cli.errors import ConfigError
from pggrpo_cli.ranges import Range
from pggrpo_cli.scoring.answer_cache import open_cache
from pggrpo_cli.scoring.chat import Chat
from pggrpo_cli.scoring.judge_prompt import JudgePrompt
from pggrpo_cli.scoring.server import Patience, Server
from pggrpo_cli.scoring.tournament import WORTH, Comparison, comparisons, shares
from pggrpo_cli.types import RewardContext, Sample, ScoreError, Scores

QUOTED = 120


@dataclass(frozen=True, kw_only=True)
class Judge:
    """mode=score: the judge gives each completion a number from `lowest` to `highest`, the last match of `pattern` (its
    first group) in its answer; the score is (number − lowest) / (highest − lowest). A number outside is an error: a judge
    that takes the scale for another one must not become the highest score.

    mode=pairwise: within a group each completion is compared with `opponents` others, each pair in both orders; the
    score is the share of wins, ties counting ½. The last match of `pair_pattern` is A, B or TIE. Does not apply to a
    completion that is alone.

    Templates are Jinja2, sandboxed, or the path of a file with one: see JudgePrompt. `temperature` and `max_tokens` None
    are not sent; `extra_body` is merged over the request. `cache`: a file; a relative path lies in the run directory.
    """

    url: str
    model: str
    key_env: str | None
    mode: Literal["score", "pairwise"]
    template: str
    pattern: str
    lowest: float
    highest: float
    pair_template: str
    pair_pattern: str
    opponents: Annotated[int, Range(ge=1)]
    temperature: Annotated[float | None, Range(ge=0)]
    max_tokens: Annotated[int | None, Range(ge=1)]
    extra_body: dict[str, Any]
    cache: str | None
    concurrency: Annotated[int, Range(ge=1, le=256)]
    retries: Annotated[int, Range(ge=0)]
    deadline_s: Annotated[float, Range(gt=0)]
    backoff_s: Annotated[float, Range(gt=0)]

    @contextmanager
    def open(self, context: RewardContext) -> Iterator[OpenJudge]:
        """Raises ConfigError for templates, patterns and caches that are none, Unavailable if nothing listens there."""
        if self.lowest >= self.highest:
            raise ConfigError(f"`reward.judge.lowest`: {self.lowest:g} is not below highest={self.highest:g}.")
        pairwise = self.mode == "pairwise"
        key = "pair_template" if pairwise else "template"
        prompt = JudgePrompt(self.pair_template if pairwise else self.template, f"reward.judge.{key}")
        pattern = _compiled(
            self.pair_pattern if pairwise else self.pattern, f"reward.judge.{'pair_' * pairwise}pattern"
        )
        url = f"{self.url.rstrip('/')}/chat/completions"
        patience = Patience(
            retries=self.retries, deadline_s=self.deadline_s, backoff_s=self.backoff_s, concurrency=self.concurrency
        )
        secret = {} if self.key_env is None else {"Authorization": ("Bearer ", self.key_env)}
        server = Server("reward.judge", url, secret, patience)
        server.refuse_unreachable()
        cache = None if self.cache is None else _place(self.cache, context.run_dir)
        chat = Chat(
            server=server,
            request=self._request(),
            cache=None if cache is None else open_cache(cache, "reward.judge.cache"),
            scope=url,
        )
        yield OpenJudge(self, chat, prompt, pattern)

    def _request(self) -> dict[str, Any]:
        limits = {"temperature": self.temperature, "max_tokens": self.max_tokens}
        given = {name: value for name, value in limits.items() if value is not None}
        return {"model": self.model, **given, **self.extra_body}


class OpenJudge:
    """The judge at work."""

    def __init__(self, settings: Judge, chat: Chat, prompt: JudgePrompt, pattern: re.Pattern[str]) -> None:
        self._settings, self._chat, self._prompt, self._pattern = settings, chat, prompt, pattern

    def score(self, samples: Sequence[Sample]) -> Scores:
        return self._pairwise(samples) if self._settings.mode == "pairwise" else self._one_by_one(samples)

    def describe(self) -> str:
        """For the plan."""
        return f"{self._settings.model} at {self._chat.server.shown}, mode {self._settings.mode}"

    def _one_by_one(self, samples: Sequence[Sample]) -> Scores:
        """The judge's words go into samples.jsonl as `answer`."""
        answers = self._chat.answers([self._prompt.of(sample) for sample in samples])
        scores = [answer if isinstance(answer, ScoreError) else self._number(answer) for answer in answers]
        return Scores(scores=scores, columns={"answer": [_words(answer) for answer in answers]})

    def _number(self, answer: str) -> float | ScoreError:
        settings = self._settings
        found = _last(self._pattern, answer)
        try:
            number = float((found or "").replace(",", "."))
        except ValueError:
            return ScoreError(message=f"the judge's answer holds no number that pattern finds: {_end(answer)}")
        if not settings.lowest <= number <= settings.highest:
            scale = f"{settings.lowest:g} to {settings.highest:g}"
            return ScoreError(message=f"the judge gave {found}, which is not on the scale from {scale}: {_end(answer)}")
        return (number - settings.lowest) / (settings.highest - settings.lowest)

    def _pairwise(self, samples: Sequence[Sample]) -> Scores:
        """What the judge said of each completion goes into samples.jsonl as `comparisons`."""
        asked = comparisons([sample.group for sample in samples], self._settings.opponents)
        # The same text twice is a tie, whatever a judge may make of it.
        real = [one for one in asked if samples[one.first].completion != samples[one.second].completion]
        answers = self._chat.answers([self._prompt.of_pair(samples[one.first], samples[one.second]) for one in real])
        said: dict[Comparison, str | ScoreError] = dict(zip(real, answers, strict=True))
        worth = {one: self._verdict(said[one]) if one in said else WORTH["TIE"] for one in asked}
        told = [
            [
                {"place": place, "against": samples[one.other(index)].completion, "answer": _words(said[one])}
                for one in real
                if (place := one.place_of(index))
            ]
            for index in range(len(samples))
        ]
        return Scores(scores=shares(len(samples), worth), columns={"comparisons": told})

    def _verdict(self, answer: str | ScoreError) -> float | ScoreError:
        """What the first of the two has won."""
        if isinstance(answer, ScoreError):
            return answer
        found = (_last(self._pattern, answer) or "").upper()
        if found not in WORTH:
            return ScoreError(
                message=f"the judge's answer holds no A, B or TIE that pair_pattern finds: {_end(answer)}"
            )
        return WORTH[found]


def _last(pattern: re.Pattern[str], text: str) -> str | None:
    found = [match.group(match.re.groups and 1) for match in pattern.finditer(text)]
    return found[-1] if found else None


def _words(answer: str | ScoreError) -> str:
    return f"(none: {answer.message})" if isinstance(answer, ScoreError) else answer


def _end(answer: str) -> str:
    return repr(answer if len(answer) <= QUOTED else f"… {answer[-QUOTED:]}")


def _compiled(pattern: str, key: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        raise ConfigError(f"`{key}`: not a regular expression: {error}") from error


def _place(path: str, run_dir: Path | None) -> Path | None:
    """None: a relative path where there is no run."""
    file = Path(path).expanduser()
    if file.is_absolute():
        return file
    return None if run_dir is None else run_dir / file
