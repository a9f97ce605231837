"""Machines without a compiler, with a broken one, with a cache that cannot be written; and the cache."""

from __future__ import annotations

import ctypes
import subprocess
import sys
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


def load(*, bfloat16: bool) -> ctypes.CDLL:
    """As in a new process."""
    found = code._library.__wrapped__(bfloat16)
    if isinstance(found, str):
        raise Uncompiled(found)
    return found


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


@pytest.mark.parametrize("script", ["exit 0", "kill -9 $$", "touch x; echo gcc"])
def test_a_compiler_that_makes_nothing(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CC", program(tmp_path, script))
    with pytest.raises(Uncompiled, match="cannot"):
        load(bfloat16=False)
    assert not cache.exists() or list(cache.iterdir()) == []


def test_a_compiler_that_cannot_be_run(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = Path(program(tmp_path, ""))
    file.write_bytes(bytes(40))
    monkeypatch.setenv("CC", str(file))
    with pytest.raises(Uncompiled, match="it cannot be used"):
        load(bfloat16=False)


def test_a_compiler_with_arguments(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "cc -DMINE")
    assert compiler() == ["cc", "-DMINE"]
    load(bfloat16=False)


def test_a_file_that_was_cut_off_is_made_again(cache: Path) -> None:
    elsewhere = "from pggrpo_cli.compiled.library import library; library(bfloat16=False)"
    subprocess.run([sys.executable, "-c", elsewhere], check=True)  # a process does not look again at what it has loaded
    (file,) = cache.iterdir()
    file.write_bytes(b"")
    load(bfloat16=False)
    assert file.stat().st_size > 10_000


def test_a_file_that_others_could_write_is_not_loaded(cache: Path) -> None:
    load(bfloat16=False)
    (file,) = cache.iterdir()
    for place in (file, cache):
        place.chmod(0o777)
        with pytest.raises(Uncompiled, match="others may write"):
            load(bfloat16=False)
        place.chmod(0o700)
    load(bfloat16=False)


def test_never(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGGRPO_COMPILED", "never")
    with pytest.raises(Uncompiled, match="says never"):
        code.library(bfloat16=False)
    assert code.code_name(bfloat16=False) == "torch: $PGGRPO_COMPILED says never"


def test_a_folder_with_a_space(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = "7f-7f r-xp 00000000 fe:01 1 /a b/libgomp-24e2ab19.so.1.0.0\n7f-7f r-xp 0 fe:01 1 /usr/lib/libgomp.so.1\n"
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: maps)
    monkeypatch.setattr("torch.__file__", "/a b/__init__.py")
    assert code._openmp() == "/a b/libgomp-24e2ab19.so.1.0.0"


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
    policy = tiny_policy()  # one is asked once
    without = sample(replace(NATIVE, decoding="auto"), policy, prompts, context)
    assert tokens(without) == tokens(with_it)
    assert "decoding in torch, which is slower than compiled code: the test says so" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"`sampler.decoding`: compiled is not possible here: the test says so"):
        sample(replace(NATIVE, decoding="compiled"), policy, prompts, context)


def test_a_resume_does_not_ask_again(
    context: RunContext, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    compiled_library()
    with replace(NATIVE, decoding="auto").open(context) as sampler:
        sampler.sample(tiny_policy(), random_prompts([5]), DRAWS)
        state = sampler.state()
    monkeypatch.setattr("pggrpo_cli.compiled.steps._difference", lambda *_: 1.0)
    for known, compiled in ((state, True), ({"max_rows": None, "decoding": None}, False)):
        with replace(NATIVE, decoding="auto").open(context) as sampler:
            sampler.load(known)
            sampler.sample(tiny_policy(), random_prompts([5]), DRAWS)
            assert (sampler.state()["decoding"] == state["decoding"]) == compiled
        assert ("differ by 1 of their spread" in capsys.readouterr().err) == (not compiled)


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
