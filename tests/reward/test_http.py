"""A scoring server, on loopback."""

from __future__ import annotations

import datetime
import decimal
import math
from pathlib import Path
from typing import Any

import pytest

from pggrpo_cli.errors import DataError, Unavailable
from pggrpo_cli.reward.http import Http
from pggrpo_cli.scoring.answers import Answers, call
from pggrpo_cli.types import RewardContext, Sample, ScoreError
from tests.loopback import Handle, Request, dead_port, loopback, sleeps, status

CONTEXT = RewardContext(run_dir=None, device="cpu", seed=1)
KEYS: dict[str, Any] = {
    **{"headers_env": {}, "columns": None, "request_size": None, "concurrency": 4},
    **{"retries": 1, "deadline_s": 5.0, "backoff_s": 0.01},
}


def sample(completion: str, prompt: Any = "p", **columns: Any) -> Sample:
    return Sample(prompt=prompt, completion=completion, completion_ids=[0], finish_reason="stop", columns=columns)


def scored(url: str, samples: list[Sample], **keys: Any) -> Answers:
    with Http(url=url, **KEYS | keys).open(CONTEXT) as reward:
        return call(reward, samples)


def lengths(request: Request) -> None:
    request.reply({"scores": [len(text) for text in request.question["completions"]]})


def test_what_is_sent_and_what_comes_back() -> None:
    chat = [{"role": "user", "content": "red?"}]
    samples = [
        sample("ab", answer="4", when=datetime.date(2026, 1, 2), price=decimal.Decimal("1.50")),
        sample("\ud800\u2028", chat, answer=None, when=None, price=None),
    ]
    with loopback(lengths) as server:
        assert scored(f"{server.url}/score", samples).answers == [2.0, 2.0]
        (request,) = server.seen
    assert request.path == "/score"
    assert request.headers["Content-Type"] == "application/json"
    assert request.question == {
        "prompts": ["p", chat],
        "completions": ["ab", "\ud800\u2028"],
        "columns": {"answer": ["4", None], "when": ["2026-01-02", None], "price": ["1.50", None]},
    }


def test_only_the_columns_that_are_wanted() -> None:
    samples = [sample("ab", answer="4", secret="x", bad=math.nan)]
    with loopback(lengths) as server:
        scored(server.url, samples, columns=["answer"])
        assert server.seen[0].question["columns"] == {"answer": ["4"]}
        with pytest.raises(
            DataError, match=r"`reward.http.columns`: the column 'bad' holds nan, which JSON does not know"
        ):
            scored(server.url, samples)
        with pytest.raises(
            DataError, match=r"`reward.http.columns`: the rows have no column 'truth'; they have 'answer'"
        ):
            scored(server.url, samples, columns=["truth"])


@pytest.mark.parametrize("size", [1, 2, None])
def test_parts_of_a_mixture_may_lack_a_column(size: int | None) -> None:
    """However many completions go into a request."""
    samples = [sample("a", answer="4"), sample("b", answer="5"), sample("c", level=1), sample("d", level=2)]

    def sent(columns: list[str] | None) -> dict[str, list[Any]]:
        with loopback(lengths) as server:
            assert scored(server.url, samples, columns=columns, request_size=size, concurrency=1).answers == [1.0] * 4
            parts = [one.question["columns"] for one in server.seen]
        return {name: [value for part in parts for value in part[name]] for name in parts[0]}

    assert sent(["answer"]) == {"answer": ["4", "5", None, None]}
    assert sent(None) == {"answer": ["4", "5", None, None], "level": [None, None, 1, 2]}
    with loopback(lengths) as server, pytest.raises(DataError, match="no column 'truth'; they have 'answer', 'level'"):
        scored(server.url, samples, columns=["answer", "truth"], request_size=size)


def test_requests_of_a_size_side_by_side() -> None:
    def slow(request: Request) -> None:
        texts = request.question["completions"]
        request.reply({"scores": [len(text) for text in texts], "columns": {"seen": texts}})

    samples = [sample("x" * number) for number in range(7)]
    with loopback(sleeps(0.1, slow)) as server:
        answers = scored(server.url, samples, request_size=2)
        assert sorted(len(one.question["completions"]) for one in server.seen) == [1, 2, 2, 2]
        assert server.most_at_once > 1
    assert answers.answers == [float(number) for number in range(7)]
    assert answers.columns == {"seen": ["x" * number for number in range(7)]}


def test_null_does_not_apply() -> None:
    with loopback(lambda request: request.reply({"scores": [None, 1, True]})) as server:
        assert scored(server.url, [sample("a")] * 3).answers == [None, 1.0, 1.0]


@pytest.mark.fault("T16")
@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ({"scores": [1]}, "gave 1 scores for 2 completions"),
        ({"scores": {"0": 1}}, 'has no list "scores"'),
        ([1, 2], 'has no list "scores"'),
        ({"error": "no"}, "has no list \"scores\": \"{'error': 'no'}\""),
        ({"scores": [math.nan, math.inf]}, "returned "),
        ({"scores": ["1", [1]]}, "returned "),
        ({"scores": [1, 2], "columns": {"why": ["only one"]}}, "lists of 2 entries"),
    ],
)
def test_answers_that_are_none(reply: Any, words: str) -> None:
    with loopback(lambda request: request.reply(reply)) as server:
        for error in scored(server.url, [sample("a"), sample("b")]).answers:
            assert isinstance(error, ScoreError)
            assert words in error.message
            assert not error.passing


@pytest.mark.fault("T16")
@pytest.mark.parametrize("trouble", [status(500), status(400), sleeps(2, lengths)])
def test_a_request_that_fails_fails_its_own_completions(trouble: Handle) -> None:
    def handle(request: Request) -> None:
        (trouble if request.question["completions"][0] == "bad" else lengths)(request)

    samples = [sample(text) for text in ("ab", "c", "bad", "d", "e")]
    with loopback(handle) as server:
        answers = scored(server.url, samples, request_size=2, deadline_s=0.5).answers
    assert [isinstance(one, ScoreError) for one in answers] == [False, False, True, True, False]


@pytest.mark.fault("T16", "T31")
def test_a_header_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MY_SCORER", "Token canary-1234567890")
    with loopback(lengths) as server:
        keys = {"headers_env": {"X-Auth": "MY_SCORER"}}
        assert scored(server.url, [sample("ab")], **keys).answers == [2.0]
        monkeypatch.setenv("MY_SCORER", "Token renewed-1234567890")
        scored(server.url, [sample("ab")], **keys)
        assert [one.headers["X-Auth"] for one in server.seen] == ["Token canary-1234567890", "Token renewed-1234567890"]


def test_a_server_that_is_not_there_is_refused() -> None:
    with pytest.raises(Unavailable, match=r"`reward.http.url`: nothing answers at http://127.0.0.1:\d+/score: "):
        scored(f"http://127.0.0.1:{dead_port()}/score", [sample("a")])
