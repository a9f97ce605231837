"""Machines without a compiler, with a broken one, with a cache that cannot be written; and the cache."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pggrpo_cli.compiled import library as code
from pggrpo_cli.compiled.library import Uncompiled, compiler
from pggrpo_cli.errors import ConfigError
from pggrpo_cli.types import RunContext
from tests.compiled.here import compiled_library
from tests.conftest import random_prompts, tiny_policy
from tests.sampler.test_native import DRAWS, NATIVE, sample, tokens

load = code.library.__wrapped__


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    compiled_library()
    monkeypatch.setenv("PGGRPO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "compiled"


def program(folder: Path, text: str) -> str:
    file = folder / "mine"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return str(file)


def test_it_is_compiled_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(bfloat16=False)
    (kept,) = cache.iterdir()
    assert kept.suffix == ".so"
    calls: list[Any] = []
    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda command, **rest: calls.append(command) or run(command, **rest))
    load(bfloat16=False)
    assert [command[1:] for command in calls] == [["--version"]]
    assert list(cache.iterdir()) == [kept]


def test_another_source_is_another_file(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(bfloat16=False)
    monkeypatch.setattr(code, "FLAGS", (*code.FLAGS, "-DNOTHING"))
    load(bfloat16=False)
    assert len(list(cache.iterdir())) == 2


def test_no_compiler(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(cache))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(Uncompiled, match="there is no C compiler"):
        compiler()


def test_a_compiler_that_fails(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", program(tmp_path, "echo 'x.c:3: error: no such thing' >&2; exit 1"))
    with pytest.raises(Uncompiled, match=r"cannot compile it .*no such thing"):
        load(bfloat16=False)
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled_library()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PGGRPO_CACHE", str(tmp_path / "file"))
    with pytest.raises(Uncompiled, match="cannot be written"):
        load(bfloat16=False)


def test_a_processor_that_lacks_the_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "_processor", lambda: "flags: sse2")
    with pytest.raises(Uncompiled, match="no AVX512-BF16"):
        load(bfloat16=True)


def test_the_sampler_without_it(
    context: RunContext, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(**_: object) -> None:
        raise Uncompiled("the test says so")

    policy, prompts = tiny_policy(), random_prompts([5, 3])
    compiled_library()
    with_it = sample(replace(NATIVE, decoding="compiled"), policy, prompts, context)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("pggrpo_cli.compiled.steps.library", refused)
    without = sample(replace(NATIVE, decoding="auto"), policy, prompts, context)
    assert tokens(without) == tokens(with_it)
    assert "decoding in torch, which is slower than compiled code: the test says so" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"`sampler.decoding`: compiled is not possible here: the test says so"):
        sample(replace(NATIVE, decoding="compiled"), policy, prompts, context)


def test_a_resume_elsewhere_is_told(context: RunContext, capsys: pytest.CaptureFixture[str]) -> None:
    compiled_library()
    policy, prompts = tiny_policy(), random_prompts([5])
    with replace(NATIVE, decoding="auto").open(context) as sampler:
        sampler.sample(policy, prompts, DRAWS)
        state = sampler.state()
    for decoding, told in (("auto", False), ("torch", True)):
        with replace(NATIVE, decoding=decoding).open(context) as sampler:
            sampler.load(state)
            sampler.sample(policy, prompts, DRAWS)
        assert ("decoded by other code" in capsys.readouterr().err) == told
