"""Sections and `_target_` nodes against the classes that describe them."""

from __future__ import annotations

import ast
import copy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pggrpo_cli import check, class_source, config
from pggrpo_cli.class_source import NoSuchTarget, read_parameters
from pggrpo_cli.composing import compose
from pggrpo_cli.errors import ConfigError, UserCodeError
from pggrpo_cli.field_types import parse_annotation
from tests.command_line import make_groups

OURS = """
from __future__ import annotations
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, Protocol
from pggrpo_cli.ranges import Range
from pggrpo_cli.suggestions import nearest

Mode = Literal["a", "b"]

@dataclass(frozen=True, kw_only=True)
class Parent:
    beta: Annotated[float, Range(gt=0, le=1)]

@dataclass(frozen=True, kw_only=True)
class Child(Parent):
    mode: Mode
    names: list[str]
    kind: ClassVar[str] = "x"
    limit: int | None = None
    hidden: int = field(init=False)

class Plain:
    def __init__(self, width: int, *, scale: float = 1.0, **more: Any) -> None: ...

def factory(optimizer, *, total: int, warmup: Annotated[float, Range(ge=0, lt=1)]): ...
"""


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package of ours that cannot be imported: only its source is read."""
    package = tmp_path / "pggrpo_cli"
    (package / "loss").mkdir(parents=True)
    for file in (package / "__init__.py", package / "loss" / "__init__.py"):
        file.write_text("")
    (package / "loss" / "sample.py").write_text(OURS + "\nraise RuntimeError('imported')\n")
    (package / "suggestions.py").write_text("def nearest(word: str): ...\n")
    monkeypatch.setattr(class_source, "ROOT", package)
    class_source._tree.cache_clear()
    yield
    class_source._tree.cache_clear()


@pytest.mark.parametrize(("annotation", "good", "bad", "allowed"), [
    ("int", [0, -3], [1.5, True, "1", None], "a whole number"),
    ("float", [0, 1.5], [True, "1e-3", None], "a number"),
    ("bool", [True, False], [0, 1, "true", None], "true or false"),
    ("str", ["", "x"], [3, True, None], "text"),
    ("int | None", [None, 3], ["x", 1.5], "a whole number or null"),
    ("Optional[float]", [None, 3.5], ["x"], "a number or null"),
    ("Union[int, str]", [1, "x"], [None, 1.5], "a whole number or text"),
    ("list[str]", [[], ["a"]], ["a", [1], None], "a list, each entry text"),
    ("dict[str, Any]", [{}, {"a": 1}], [[], None], "a mapping"),
    ("Literal['a', 'b']", ["a"], ["c", None, 3], "a | b"),
    ("Literal['a'] | None", ["a", None], ["c"], "a or null"),
    ("Annotated[float, Range(gt=0, le=1)]", [0.5, 1], [0, -1, 1.1, float("nan")], "a number > 0 and ≤ 1"),
    ("Annotated[int, Range(ge=1)] | None", [None, 1], [0], "a whole number ≥ 1 or null"),
    ("Annotated[int | None, Range(ge=1, lt=3)]", [None, 2], [0, 3], "a whole number ≥ 1 and < 3 or null"),
    ("list[Annotated[float, Range(ge=0)]]", [[0.5]], [[-1.0]], "a list, each entry a number ≥ 0"),
    ("'int'", [1], ["x"], "a whole number"),
    ("Any", [None, 1, "x", []], [], ""),
    ("Something", [None, 1], [], ""),
])  # fmt: skip
def test_annotations(annotation: str, good: list[Any], bad: list[Any], allowed: str) -> None:
    kind = parse_annotation(ast.parse(annotation, mode="eval").body, {})
    assert kind.allowed() == allowed
    assert [kind.problem(value) for value in good] == [None] * len(good)
    assert all(kind.problem(value) for value in bad)


@pytest.mark.usefixtures("ours")
def test_classes_are_read_unimported() -> None:
    child = read_parameters("pggrpo_cli.loss.sample.Child").by_name
    assert {name: one.required for name, one in child.items()} == {
        "beta": True,
        "mode": True,
        "names": True,
        "limit": False,
    }
    assert child["mode"].type.choices == ("a", "b")
    assert child["beta"].type.problem(2)
    plain = read_parameters("pggrpo_cli.loss.sample.Plain")
    assert plain.open
    assert list(plain.by_name) == ["width", "scale"]
    factory = read_parameters("pggrpo_cli.loss.sample.factory").by_name
    assert [name for name, one in factory.items() if one.required] == ["optimizer", "total", "warmup"]
    assert list(read_parameters("pggrpo_cli.loss.sample.nearest").by_name) == ["word"]


@pytest.mark.usefixtures("ours")
@pytest.mark.parametrize(("target", "words"), [
    ("pggrpo_cli.loss.sampel.Child", "has no module sampel. Did you mean sample?"),
    ("pggrpo_cli.loss.sample.Chidl", "Did you mean Child?"),
    ("pggrpo_cli.loss.sample.os.system", "has no module os"),
    ("pggrpo_cli.loss.sample.Literal", "defines no Literal"),
    ("pggrpo_cli", "names no class"),
    ("pggrpo_cli.", "names no class"),
])  # fmt: skip
def test_targets_that_are_not_there(target: str, words: str) -> None:
    with pytest.raises(NoSuchTarget, match=words.replace("?", r"\?")):
        read_parameters(target)


def problems(values: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        check.check_values(values)
    return str(caught.value).split("\n")


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = make_groups(tmp_path_factory.mktemp("groups"))
    found = config.plain(compose("train", ["model=tiny", "logger=mine", "loss=other", "reward=mine"], str(folder)))
    check.check_values(found)
    return found


@pytest.fixture
def values(composed: dict[str, Any]) -> dict[str, Any]:
    return copy.deepcopy(composed)


@pytest.mark.parametrize(("key", "value", "words"), [
    ("checkpoint.keep_best", "eval/reward", "METRIC:max"),
    ("checkpoint.keep_last", 0, "0 is not ≥ 1"),
    ("name", "a/b", "folder's name"),
    ("seed", -1, "-1 is not ≥ 0"),
    ("evaluation.temperature", -0.1, "not ≥ 0"),
    ("reference.dtype", "float16", "auto | float32 | bfloat16"),
    ("trainer.maxsteps", 3, "trainer has no such key. Did you mean max_steps?"),
    ("model.weight_dtype", "float16", "float32 | bfloat16"),
    ("model.gradient_checkpointing", 1, "true or false"),
    ("data.overlong", "cut", "drop | truncate_left | error"),
    ("data.system_promt", "x", "Did you mean system_prompt?"),
    ("reward.mine.weigth", 1, "mine"),
    ("reward.chosen", {"_target_": "parts.Part", "weight": 1}, "taken by the metric"),
    ("sampler.stop", "x", "not a list"),
    ("loss", {"beta": 1}, "names no class"),
    ("pairing", None, "names no class"),
    ("reward", None, "is no mapping"),
    ("trainer", None, "is missing"),
    ("loss.inner", {"_target_": "pggrpo_cli.sampler.native.Nativ"}, "Did you mean Native?"),
])  # fmt: skip
def test_one_thing_wrong(values: dict[str, Any], key: str, value: Any, words: str) -> None:
    *path, last = key.split(".")
    node = values
    for part in path:
        node = node.setdefault(part, {"_target_": "parts.Part", "weight": 1.0})
    node[last] = value
    if key == "reward.mine.weigth":  # parts.Part is not ours: its keys are compared once it may be imported
        with pytest.raises(ConfigError, match=r"parts\.Part has no such key"):
            check.check_foreign_targets(config.build(values))
        return
    found = problems(values)
    assert len(found) == 1
    assert found[0].startswith(f"`{key}")
    assert words in found[0]


def test_missing_keys(values: dict[str, Any]) -> None:
    del values["sampler"]["top_k"], values["trainer"]["max_steps"], values["model"]["compute_dtype"]
    values["sampler"]["_partial_"] = False
    assert [one.split("`")[1] for one in problems(values)] == [
        "trainer.max_steps",
        "model.compute_dtype",
        "sampler.top_k",
    ]
    values["sampler"]["_partial_"] = True
    assert "sampler.top_k" not in "".join(problems(values))


def test_our_own_classes_take_what_our_own_files_give() -> None:
    """Every file of conf/ that names a class of ours that is there: no unknown key, no missing key, every value fits."""
    from omegaconf import OmegaConf

    for file in sorted(config.conf_dir().glob("*/*.yaml")):
        group = file.parent.name
        if group not in (*config.SINGLE_GROUPS, *config.NAMED_GROUPS):
            continue
        raw = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
        raw.pop("defaults", None)
        own = dict(OmegaConf.load(config.conf_dir() / "train.yaml").get(group) or {})
        for node in check.nodes({group: raw if group in config.NAMED_GROUPS else {**own, **raw}}):
            if class_source.is_ours(node.target):
                wrong = [one for one in check._node_problems(node) if "is not set" not in one and "${" not in one]
                assert wrong == [], file


def test_foreign_targets(values: dict[str, Any], tmp_path: Path) -> None:
    values["loss"]["_target_"] = "parts.Prat"
    values["optimizer"] = {"_target_": "parts.factory", "_partial_": True, "lr": 0.1, "momentum": 0.9}
    values["advantage"]["_target_"] = "parts.factory"
    with pytest.raises(ConfigError) as caught:
        check.check_foreign_targets(config.build(values))
    words = str(caught.value)
    assert "`optimizer.momentum`: parts.factory has no such key" in words
    assert "Did you mean Part?" in words
    assert "`advantage.lr`: is missing" in words
    assert "`optimizer.parameters`" not in words
    broken = tmp_path / "broken_of_theirs.py"
    broken.write_text("1 / 0\n")
    sys.path.append(str(tmp_path))
    values["loss"] = {"_target_": "broken_of_theirs.Loss"}
    with pytest.raises(UserCodeError) as theirs:
        check.check_foreign_targets(config.build(values))
    assert isinstance(theirs.value.__cause__, ZeroDivisionError)
