"""The schema, where conf/ is found, and that the package takes it along."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from pggrpo_cli import config
from pggrpo_cli.check import check_values
from pggrpo_cli.class_source import read_parameters
from pggrpo_cli.composing import compose
from pggrpo_cli.errors import ConfigError
from tests.command_line import ROOT

pytest_plugins = ["tests.command_fixtures"]


def test_typed(groups: Path) -> None:
    cfg = compose(
        "train", ["logger=mine", "trainer.max_minutes=5", "evaluation.temperature=0", "name=run-${seed}"], str(groups)
    )
    typed = config.typed(cfg)
    assert typed.name == "run-1"
    assert typed.trainer.max_minutes == 5.0
    assert isinstance(typed.trainer.max_minutes, float)
    assert isinstance(typed.evaluation.temperature, float)
    assert typed.resume.from_ is None
    assert typed.sampler["group_size"] == 8
    assert type(typed.sampler) is dict
    assert config.typed(config.as_dict(typed)) == typed


def test_every_key_has_its_default_in_yaml_and_its_type_in_python() -> None:
    values = OmegaConf.load(config.conf_dir() / "train.yaml")
    for name, cls in config.SECTIONS.items():
        assert list(values[name]) == [config.key_of(field.name) for field in dataclasses.fields(cls)]
        assert all(field.default is dataclasses.MISSING for field in dataclasses.fields(cls))


def test_keys_of_nodes_are_described() -> None:
    assert {
        group: frozenset(read_parameters(target).by_name) for group, target in config.NODE_SETTINGS.items()
    } == config.MAPPING_KEYS


def test_an_interpolated_environment_variable_gets_its_type(groups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPS", "7")
    assert (
        config.typed(
            compose("train", ["logger=mine", "trainer.max_steps=${oc.env:STEPS}"], str(groups))
        ).trainer.max_steps
        == 7
    )


def test_interpolation_that_fails(groups: Path) -> None:
    with pytest.raises(ConfigError, match=r"`sampler\.top_k`.*NOT_SET"):
        config.plain(compose("train", ["logger=mine", "sampler.top_k=${oc.env:NOT_SET}"], str(groups)))


def test_an_earlier_release_knew_less() -> None:
    """Groups and keys that came later have their defaults, of the options that the run has; what it has stays."""
    values = OmegaConf.to_container(OmegaConf.load(ROOT / "tests" / "golden" / "0.1.0" / "run" / "config.yaml"))
    assert isinstance(values, dict)
    assert "order" not in values
    now = config.brought_up_to_date(values)
    check_values(now)
    assert now["order"] == {"_target_": "pggrpo_cli.order.shuffled.Shuffled"}
    assert now["loss"] == {**values["loss"], "nll_coef": 0.0}
    own = {"_target_": "mine.Loss", "beta": 1}
    assert config.brought_up_to_date({**values, "loss": own})["loss"] == own


def test_conf_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert config.conf_dir() == ROOT / "conf"
    installed = tmp_path / "pggrpo_cli"
    (installed / "conf").mkdir(parents=True)
    monkeypatch.setattr(config, "__file__", str(installed / "config.py"))
    assert config.conf_dir() == installed / "conf"


def test_every_package_is_packaged() -> None:
    tomllib = pytest.importorskip("tomllib")  # Python 3.10 has none; the list is the same there
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = [file.parent for file in (ROOT / "pggrpo_cli").rglob("__init__.py") if "conf" not in file.parts]
    packages = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    below = {file.parent.relative_to(ROOT / "conf").parts for file in (ROOT / "conf").glob("*/**/*.yaml")}
    groups = {f"pggrpo_cli.conf.{'.'.join(parts)}" for parts in below}
    assert set(settings["packages"]) == packages | groups | {"pggrpo_cli.conf"}
    assert settings["package-dir"] == {"pggrpo_cli.conf": "conf"}
