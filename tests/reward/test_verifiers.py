"""The rewards of a verifiers environment, by the real library, in the process they run in."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pggrpo_cli.check import checked
from pggrpo_cli.composing import compose
from pggrpo_cli.errors import ConfigError, DataError
from pggrpo_cli.reward.verifiers import Verifiers
from pggrpo_cli.scoring.answers import Answers
from pggrpo_cli.scoring.output import Output
from pggrpo_cli.scoring.pool import IsolatedReward, Pool
from pggrpo_cli.scoring.scorer import reward_settings
from pggrpo_cli.types import RewardContext, Sample, ScoreError
from tests.command_line import ROOT, run_all
from tests.data.verifiers_environments import write_environments

NODE = yaml.safe_load((ROOT / "conf" / "reward" / "verifiers.yaml").read_text())["verifiers"]
CONTEXT = RewardContext(run_dir=None, device="cpu", seed=1)
QUESTION = [{"role": "system", "content": "Only the number."}, {"role": "user", "content": "3 + 1 = ?"}]


@pytest.fixture
def environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_environments(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def sample(completion: str, info: dict[str, Any], finish: Any = "stop", columns: Any = None) -> Sample:
    task = {"prompt": "3 + 1 = ?", "system_prompt": "Only the number.", "answer": "4", "info": info}
    return Sample(
        prompt=QUESTION,
        completion=completion,
        completion_ids=[5, 6],
        finish_reason=finish,
        columns=columns or {"task_data": task},
    )


@pytest.fixture
def score(environments: Path) -> Iterator[Callable[..., Answers]]:
    with Pool(1, CONTEXT, Output(None)) as pool:

        def score(*samples: Sample, environment: str = "sums_env", **keys: Any) -> Answers:
            node = NODE | {"environment": environment} | keys
            name = f"{environment}_otherwise" if keys else environment  # by which a process keeps what it has loaded
            reward = IsolatedReward(name=name, node=node, timeout_s=60)
            return pool.submit(reward, samples).result(120)

        yield score


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pggrpo_cli.verifiers_environment.installed_version", lambda: "")
    with (
        pytest.raises(ConfigError, match=r"`reward.verifiers`: the verifiers library is not installed"),
        Verifiers(environment="sums_env", options={}, concurrency=1, deadline_s=1.0).open(CONTEXT),
    ):
        pass


def test_a_call_is_of_one_prompt() -> None:
    config = checked(compose("train", ["reward=verifiers", "reward.verifiers.environment=any", "sampler.group_size=3"]))
    settings = reward_settings(config, "verifiers")
    assert settings.batch_size == 3
    assert settings.timeout_s is not None
    assert settings.timeout_s > config.reward["verifiers"]["deadline_s"]


@pytest.mark.verifiers
def test_the_weighted_sum_and_what_it_is_made_of(score: Callable[..., Answers]) -> None:
    limit = {"limit": 2}
    answers = score(sample("4", limit), sample("5", limit), sample("It is 4", limit), sample(" 4 ", limit, "length"))
    # correct + 0.5 brief; " 4 " is right once stripped, and 3 characters long
    assert answers.answers == [1.5, 0.5, 0.0, 1.0]
    assert answers.columns["correct"] == [1.0, 0.0, 0.0, 1.0]
    assert answers.columns["brief"] == [1.0, 1.0, 0.0, 0.0]
    assert answers.columns["saw"] == [11.0, 11.0, 11.0, 111.0]


@pytest.mark.verifiers
def test_one_that_raises_fails_alone(score: Callable[..., Answers]) -> None:
    first, error, last = score(*(sample(text, {"limit": 9}) for text in ("4", "crash", "5"))).answers
    assert (first, last) == (1.5, 0.5)
    assert isinstance(error, ScoreError)
    assert error.message == "raised ValueError: this reply"
    assert "in correct" in error.traceback


@pytest.mark.verifiers
def test_completions_are_scored_concurrently(score: Callable[..., Answers]) -> None:
    score(sample("4", {"limit": 2}))
    started = time.monotonic()
    assert score(*[sample("4", {"limit": 2, "seconds": 0.5})] * 8).answers == [1.5] * 8
    assert time.monotonic() - started < 2.0


@pytest.mark.verifiers
def test_one_that_hangs_fails_alone(score: Callable[..., Answers]) -> None:
    quick, hangs = sample("4", {"limit": 2}), sample("4", {"limit": 2, "seconds": 600})
    score(quick)
    started = time.monotonic()
    first, error, last = score(quick, hangs, quick, deadline_s=1.0).answers
    assert time.monotonic() - started < 10
    assert (first, last) == (1.5, 1.5)
    assert error == ScoreError(message="was not scored within 1 seconds (deadline_s=1)")


@pytest.mark.verifiers
def test_even_if_all_hang_the_call_ends_in_time(score: Callable[..., Answers]) -> None:
    quick, hangs = sample("4", {"limit": 2}), sample("4", {"limit": 2, "seconds": 600})
    score(quick)
    started = time.monotonic()
    answers = score(*[hangs] * 4, quick, deadline_s=3.0, concurrency=2).answers  # 3 rounds of 1 second
    assert time.monotonic() - started < 10
    assert answers == [ScoreError(message="was not scored within 1 seconds (deadline_s=3)")] * 4 + [1.5]


@pytest.mark.verifiers
def test_no_more_than_concurrency_at_once(score: Callable[..., Answers]) -> None:
    score(sample("4", {"limit": 2}))
    started = time.monotonic()
    assert score(*[sample("4", {"limit": 2, "seconds": 0.5})] * 6, concurrency=2).answers == [1.5] * 6
    assert time.monotonic() - started >= 1.5


@pytest.mark.verifiers
def test_columns_of_other_data(score: Callable[..., Answers]) -> None:
    assert score(sample("7", {}, columns={"answer": "7", "info": {"limit": 2}, "further": 1})).answers == [1.5]
    with pytest.raises(DataError, match=r"do not make a SumData of sums_env: answer: Field required"):
        score(sample("7", {}, columns={"info": {}}))


@pytest.mark.verifiers
@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ("runtime_env", "One.tests_pass of 'runtime_env' looks into the runtime"),
        ("worthless_env", "have no reward and no judge"),
        ("tools_env", "its model has tools"),
        ("nowhere_env", "`reward.verifiers.environment`: 'nowhere_env' cannot be imported"),
    ],
)
def test_refused(score: Callable[..., Answers], environment: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        score(sample("4", {}), environment=environment)
    assert words in str(caught.value)


@pytest.mark.verifiers
def test_data_and_reward_together(environments: Path) -> None:
    line = ["reward", "test", "data=verifiers", "data.environment=sums_env", "data.eval_size=2", "reward=verifiers"]
    line += ["reward.verifiers.environment=sums_env", "--rows=2", "--json"]
    ((code, out, err, heavy),) = run_all([line], environments)
    assert code == 0, err
    assert "torch" not in heavy
    found = [json.loads(text) for text in out.splitlines()]
    assert [one["reward"] for one in found] == [0.5, 0.5, 1.5] * 2
    assert found[2]["extra"] == {"verifiers.correct": 1.0, "verifiers.brief": 1.0, "verifiers.saw": 11.0}
