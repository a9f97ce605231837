"""What a class or function of ours takes, read from its source without importing it: torch stays asleep."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pggrpo_cli.field_types import FieldType, parse_annotation
from pggrpo_cli.suggestions import did_you_mean

PACKAGE = "pggrpo_cli"
ROOT = Path(__file__).resolve().parent
Definition = ast.ClassDef | ast.FunctionDef


class NoSuchTarget(Exception):
    """The `_target_` names nothing of ours; the message says what is there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameter:
    """A key that a class or function takes."""

    type: FieldType
    required: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameters:
    """All that it takes; `open` if any other key is welcome (**kwargs)."""

    by_name: Mapping[str, Parameter]
    open: bool = False


def is_ours(target: str) -> bool:
    return target.partition(".")[0] == PACKAGE


def read_parameters(target: str) -> Parameters:
    """What the class or function of ours that `target` names takes. Raises NoSuchTarget."""
    module, name = _split(target)
    return _parameters(module, name)


def _split(target: str) -> tuple[str, str]:
    """Module and name. A target is a module of ours, a dot and a name that this module defines."""
    module, _, name = target.rpartition(".")
    if not module or not name:
        raise NoSuchTarget(f"{target!r} names no class.")
    deepest = module
    while _file(deepest) is None:
        deepest = deepest.rpartition(".")[0]
    if deepest != module:
        wanted = module.removeprefix(f"{deepest}.").partition(".")[0]
        stems = sorted(path.stem for path in ROOT.joinpath(*deepest.split(".")[1:]).glob("*"))
        options = [stem for stem in stems if not stem.startswith("_") and _file(f"{deepest}.{stem}")]
        raise NoSuchTarget(f"{deepest} has no module {wanted}.{did_you_mean(wanted, options)}")
    return module, name


def _file(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split(".")[1:])
    if module.partition(".")[0] != PACKAGE:
        return None
    return next((one for one in (path.with_suffix(".py"), path / "__init__.py") if one.is_file()), None)


@lru_cache(maxsize=256)
def _tree(module: str) -> ast.Module:
    file = _file(module)
    assert file is not None
    return ast.parse(file.read_text(encoding="utf-8"))


def _parameters(module: str, name: str) -> Parameters:
    body = _tree(module).body
    found = {one.name: one for one in body if isinstance(one, Definition)}
    if name not in found:
        origin = _imported_from(body, name)
        if origin is not None:
            return read_parameters(origin)
        names = [one for one in found if not one.startswith("_")]
        there = f" {module} defines {', '.join(names)}." if names else ""
        raise NoSuchTarget(f"{module} defines no {name}.{did_you_mean(name, names)}{there}")
    aliases = {
        target.id: one.value
        for one in body
        if isinstance(one, ast.Assign)
        for target in one.targets
        if isinstance(target, ast.Name)
    }
    return _of_definition(module, found[name], aliases)


def _of_definition(module: str, definition: Definition, aliases: Mapping[str, ast.expr]) -> Parameters:
    if isinstance(definition, ast.FunctionDef):
        return _of_function(definition, aliases, skip=0)
    own_init = next(
        (one for one in definition.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"), None
    )
    if own_init is not None:
        return _of_function(own_init, aliases, skip=1)
    by_name: dict[str, Parameter] = {}
    is_open = False
    for base in definition.bases:
        if isinstance(base, ast.Name):
            inherited = _of_base(module, base.id)
            by_name |= inherited.by_name
            is_open = is_open or inherited.open
    if any("dataclass" in ast.unparse(one) for one in definition.decorator_list):
        by_name |= _fields(definition, aliases)
    return Parameters(by_name=by_name, open=is_open)


def _of_base(module: str, name: str) -> Parameters:
    """What a base class brings: nothing for a protocol, anything for a class that is not ours."""
    if name in ("Protocol", "ABC", "object"):
        return Parameters(by_name={})
    try:
        return _parameters(module, name)
    except NoSuchTarget:
        return Parameters(by_name={}, open=True)


def _fields(definition: ast.ClassDef, aliases: Mapping[str, ast.expr]) -> dict[str, Parameter]:
    fields = {}
    for one in definition.body:
        if not isinstance(one, ast.AnnAssign) or not isinstance(one.target, ast.Name):
            continue
        value = ast.unparse(one.value) if one.value is not None else ""
        if "ClassVar" in ast.unparse(one.annotation) or "init=False" in value:
            continue
        fields[one.target.id] = Parameter(type=parse_annotation(one.annotation, aliases), required=not value)
    return fields


def _of_function(definition: ast.FunctionDef, aliases: Mapping[str, ast.expr], skip: int) -> Parameters:
    arguments = definition.args
    positional = [*arguments.posonlyargs, *arguments.args]
    without_default = len(positional) - len(arguments.defaults)
    by_name = {
        one.arg: Parameter(type=parse_annotation(one.annotation, aliases), required=index < without_default)
        for index, one in enumerate(positional)
        if index >= skip
    }
    for one, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        by_name[one.arg] = Parameter(type=parse_annotation(one.annotation, aliases), required=default is None)
    return Parameters(by_name=by_name, open=arguments.kwarg is not None)


def _imported_from(body: list[ast.stmt], name: str) -> str | None:
    """Where a module of ours has `name` from, if from another module of ours."""
    for one in body:
        if isinstance(one, ast.ImportFrom) and one.module and is_ours(one.module) and not one.level:
            for alias in one.names:
                if (alias.asname or alias.name) == name:
                    return f"{one.module}.{alias.name}"
    return None
