"""Whole runs whose reward asks a server on loopback: it answers, it is down, it comes back."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pggrpo_cli.assemble import run_training
from pggrpo_cli.check import checked
from pggrpo_cli.composing import compose
from pggrpo_cli.errors import StoppedEarly, UserCodeError
from pggrpo_cli.interruption import Interruption
from tests.command_line import run, run_all
from tests.killing import TIMES
from tests.loopback import Loopback, Request, chat, dead_port, loopback, status

pytestmark = pytest.mark.fault("T16")

TINY = ["debug=fast", "logger=[]", "trainer.max_steps=3", "evaluation.every=3", "sampler.max_new_tokens=4"]
QUICK = ["reward.judge.retries=1", "reward.judge.backoff_s=0.01", "reward.judge.deadline_s=5", "reward.judge.model=m"]
CANARY = "canary-1234567890"


def by_length(question: str) -> str:
    return str(len(question) % 11)


def line(server: Loopback, *more: str) -> list[str]:
    return [*TINY, "reward=judge", *QUICK, f"reward.judge.url={server.url}/v1", *more]


def trained(server: Loopback, folder: Path, *more: str, checkpoint: Path | None = None) -> dict[str, float]:
    folder.mkdir(exist_ok=True)
    return run_training(checked(compose("train", line(server, *more))), folder, checkpoint, Interruption())


def metrics_of(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in one.items() if not name.startswith(TIMES)} for one in lines]


def down_from(number: int) -> Callable[[Request], None]:
    """Answers so many questions and is down from then on."""

    def handle(request: Request) -> None:
        server: Any = request.server
        (chat(by_length) if len(server.seen) <= number else status(503))(request)

    return handle


def test_the_experiment_with_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_SECRET", CANARY)
    with loopback(chat(lambda question: f"I know {CANARY}.\n{by_length(question)}")) as server:
        keys = [*TINY, *QUICK, f"reward.judge.url={server.url}/v1", "reward.judge.key_env=JUDGE_SECRET"]
        done = run(["train", "experiment=judge", *keys, *SHOWN], tmp_path)
        assert done.returncode == 0, done.stderr
        assert {one.headers["Authorization"] for one in server.seen} == {f"Bearer {CANARY}"}
    assert f"reward.judge: m at {server.url}/v1/chat/completions, mode score" in done.stdout
    samples = [json.loads(text) for text in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    assert all(re.fullmatch(r"I know \[secret\].\n\d+", one["judge.answer"]) for one in _extras(samples))
    assert CANARY not in done.stdout + done.stderr
    for file in (path for path in tmp_path.rglob("*") if path.is_file()):
        assert CANARY.encode() not in file.read_bytes(), file


def _extras(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    assert samples
    return [one.get("extra", one) for one in samples]


SHOWN = ["logger=[console]", "hydra.run.dir=run", "reward.overlong.margin_tokens=2", "trainer.max_steps=1"]
DRY_RUN = 12
FIRST_EVALUATION, STEP = 2, 4


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    with loopback(chat(by_length)) as server:
        trained(server, folder)
    return folder


@pytest.mark.parametrize(
    ("on_error", "answered", "step", "where"),
    [
        ("raise", DRY_RUN, 0, "Stopped before the first step"),
        ("skip", DRY_RUN + FIRST_EVALUATION + 1, 0, "Stopped in the rollout of step 1 of 3"),
        ("raise", DRY_RUN + FIRST_EVALUATION + STEP + 3, 1, "Stopped in the rollout of step 2 of 3"),
        ("skip", DRY_RUN + FIRST_EVALUATION + 3 * STEP, 3, "Stopped in the evaluation behind step 3 of 3"),
    ],
)
def test_a_server_that_goes_down_stops_the_run_and_it_goes_on(
    on_error: str, answered: int, step: int, where: str, tmp_path: Path, undisturbed: Path
) -> None:
    more = [f"reward.judge.on_error={on_error}", "reward.judge.concurrency=1", "reward.judge.cache=null"]
    with loopback(down_from(answered)) as server:
        with pytest.raises(StoppedEarly) as caught:
            trained(server, tmp_path, *more)
        words = str(caught.value)
        assert words.startswith("`reward.judge`: http://127.0.0.1:")
        assert "status 503" in words
        assert where in words
        assert "Go on with: pggrpo resume" in words
        saved = sorted((tmp_path / "checkpoints").glob("step-*"))
        assert saved[-1].name == f"step-{step:06d}"
        server.handle_question = chat(by_length)
        trained(server, tmp_path, *more, checkpoint=saved[-1])
    assert metrics_of(tmp_path) == metrics_of(undisturbed)
    assert (tmp_path / "samples.jsonl").read_bytes() == (undisturbed / "samples.jsonl").read_bytes()


def test_an_evaluation_without_its_judge_loses_no_step(tmp_path: Path) -> None:
    """With no checkpoint in reach; the judge leaves twice, the second time in the middle of the evaluation."""
    more = ["evaluation.every=2", "checkpoint.every=null", "reward.judge.concurrency=1", "reward.judge.on_error=raise"]
    more.append("reward.judge.cache=null")
    whole, run_dir = tmp_path / "whole", tmp_path / "run"
    with loopback(chat(by_length)) as server:
        trained(server, whole, *more)
    with loopback(down_from(DRY_RUN + FIRST_EVALUATION + 2 * STEP)) as server:
        with pytest.raises(StoppedEarly, match="evaluation behind step 2 of 3, which will be done again"):
            trained(server, run_dir, *more)
        assert [one["step"] for one in metrics_of(run_dir)] == [0, 1]
        checkpoint = run_dir / "checkpoints" / "step-000002"
        server.handle_question = down_from(len(server.seen) + DRY_RUN + 1)
        with pytest.raises(StoppedEarly, match="evaluation behind step 2 of 3, which will be done again"):
            trained(server, run_dir, *more, checkpoint=checkpoint)
        server.handle_question = chat(by_length)
        trained(server, run_dir, *more, checkpoint=checkpoint)
    found, expected = metrics_of(run_dir), metrics_of(whole)
    assert [list(one) for one in found] == [list(one) for one in expected]
    assert found == expected
    for file in ("samples.jsonl", "checkpoints/step-000003/model.safetensors"):
        assert (run_dir / file).read_bytes() == (whole / file).read_bytes(), file


def test_a_judge_in_a_process_of_its_own_begins_ahead_and_stops_the_run_alike(
    tmp_path: Path, undisturbed: Path
) -> None:
    more = ["reward.judge.isolated=true", "reward.judge.batch_size=4", "scoring.workers=1", "reward.judge.cache=null"]
    with loopback(down_from(DRY_RUN + FIRST_EVALUATION + STEP)) as server:
        with pytest.raises(StoppedEarly, match=r"status 503.*Stopped in the rollout of step 2 of 3") as caught:
            trained(server, tmp_path, *more)
        assert "Go on with: pggrpo resume" in str(caught.value)
        server.handle_question = chat(by_length)
        trained(server, tmp_path, *more, checkpoint=tmp_path / "checkpoints" / "step-000001")
    assert metrics_of(tmp_path) == metrics_of(undisturbed)
    assert (tmp_path / "samples.jsonl").read_bytes() == (undisturbed / "samples.jsonl").read_bytes()


def test_a_judge_that_is_often_unreadable_is_no_reason_to_wait(tmp_path: Path) -> None:
    with loopback(chat(lambda question: "Hm.")) as server, pytest.raises(UserCodeError, match="12 of 12 failed"):
        trained(server, tmp_path / "run")


BAD = {
    "no address": (
        ["reward=http", "reward.http.url=localhost:9000"],
        "`reward.http.url`: 'localhost:9000' is no address",
    ),
    "another scheme": (
        ["reward=http", "reward.http.url=ftp://host/x"],
        "`reward.http.url`: 'ftp://host/x' is no address",
    ),
    "a password": (
        ["reward=http", "reward.http.url=http://me:hunter2-x@host/"],
        "`reward.http.url`: holds a name or a",
    ),
    "a key in the address": (
        ["reward=http", "reward.http.url='http://h/score?x=1&access_token=hunter2-x'"],
        "`reward.http.url`: the address has a parameter 'access_token', a secret",
    ),
    "a key of Azure's": (
        ["reward.judge.url='https://h/api?code=hunter2-x'"],
        "`reward.judge.url`: the address has a parameter 'code', a secret",
    ),
    "a token in the address": (
        ["reward=http", "reward.http.url='http://h/score?x=hf_hunter2hunter2hunter2'"],
        "`reward.http.url`: the address has a parameter that holds an access token, a secret",
    ),
    "a key in no address": (
        ["reward=http", "reward.http.url='http://h:port/?access_token=hunter2-x'"],
        "`reward.http.url`: 'http://h:port/?…' is no address",
    ),
    "no variable": (["reward.judge.key_env=NO_SUCH_KEY"], "the environment variable NO_SUCH_KEY is not set"),
    "the key itself": (["reward.judge.key_env=sk-hunter2-x"], "`reward.judge.key_env`: is no name of an environment"),
    "a key like a name": (["reward.judge.key_env=hunter2xab"], "not shown, in case it is the secret itself"),
    "a header's value": (
        ["reward=http", "reward.http.url=http://h/", "+reward.http.headers_env.Authorization='Bearer hunter2'"],
        "`reward.http.headers_env.Authorization`: is no name of an environment variable",
    ),
    "a header of no name": (
        ["reward=http", "reward.http.url=http://h/", "+reward.http.headers_env={a b: HOME}"],
        "`reward.http.headers_env`: 'a b' is no name of a header",
    ),
    "a part of a group": (
        ["reward.judge.mode=pairwise", "reward.judge.batch_size=3"],
        "`reward.judge.batch_size`: 3 may divide a group",
    ),
    "no url": (["reward=http"], "`reward.http.url`: is not set and has no default"),
    "no model": (["reward.judge.model=???"], "`reward.judge.model`: is not set and has no default"),
    "another mode": (["reward.judge.mode=best"], "`reward.judge.mode`: 'best' is none of the choices"),
}


@pytest.mark.fault("T31")
def test_keys_are_checked_before_anything_heavy(tmp_path: Path) -> None:
    judge = ["reward=judge", "reward.judge.model=m"]
    lines = [["train", *TINY, *([] if "reward=http" in more else judge), *more] for more, _ in BAD.values()]
    for name, (code, _, err, heavy), (_, words) in zip(BAD, run_all(lines, tmp_path), BAD.values(), strict=True):
        assert (code, heavy) == (2, []), name
        assert words in err, name
        assert "hunter2" not in err, name
    assert not list(tmp_path.iterdir())


def test_exit_codes_of_a_server_that_is_not_there_and_of_one_that_goes(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{dead_port()}/v1"
    (tmp_path / "empty").mkdir()
    with loopback(down_from(2 * DRY_RUN + FIRST_EVALUATION)) as server:
        absent = ["train", *line(server, f"reward.judge.url={url}"), "hydra.run.dir=none"]
        leaves = ["train", *line(server, "reward.judge.concurrency=1"), "hydra.run.dir=run"]
        refused = ["train", *line(server), "model=hf", "model.path=./empty", "hydra.run.dir=refused"]
        (code, _, err, _), (other, _, _, _), (stopped, _, words, _) = run_all([absent, refused, leaves], tmp_path)
    assert code == 2
    assert err.startswith(f"error: `reward.judge.url`: nothing answers at {url}/chat/completions: the connection was")
    assert err.count("\n") == 1
    assert not (tmp_path / "none").exists()
    assert other == 2
    assert not (tmp_path / "refused").exists()  # though the judge was asked, and its answers were kept there
    assert stopped == 75
    assert words.startswith("`reward.judge`: ")
    assert "Go on with: pggrpo resume run" in words
    assert "Traceback" not in words
