"""A function in a Python file of the user's."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from pggrpo_cli.errors import ConfigError, UserCodeError

IMPORTS = (ast.Import, ast.ImportFrom)
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def lacks_function(path: Path, name: str) -> str | None:
    """What is wrong, if the source of the file alone shows that it binds no such name; the file is not run."""
    try:
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
    except SyntaxError as error:
        return f"{path} is no Python: {error.msg} in line {error.lineno}."
    except (OSError, ValueError) as error:
        return f"{path} cannot be read: {error}."
    if any(word in text for word in ("import *", "globals()", "exec(", "__getattr__", "setattr(")):
        return None  # only running it tells
    bound = {alias.asname or alias.name for node in ast.walk(tree) if isinstance(node, IMPORTS) for alias in node.names}
    bound |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    bound |= {node.name for node in ast.walk(tree) if isinstance(node, DEFINITIONS)}
    functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return None if name in bound else f"{path} has no function {name!r}; it has {', '.join(functions) or 'none'}."


@lru_cache(maxsize=32)
def load_function(path: str, name: str, key: str) -> Callable[..., Any]:
    """The function `name` of the file `path`, which is run once. Errors begin with `key`.path or `key`.name.

    Raises ConfigError if one of them is not there, UserCodeError if the file itself raises.
    """
    file = Path(path).expanduser().resolve()
    if not file.is_file():
        raise ConfigError(f"`{key}.path`: there is no file {path} (looked in {Path.cwd()}).")
    spec = importlib.util.spec_from_file_location(f"pggrpo_user_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise ConfigError(f"`{key}.path`: {path} is no Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickles look their module up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[spec.name]
        raise UserCodeError(f"`{key}.path`: {path} raised {type(error).__name__} when read: {error}") from error
    function = getattr(module, name, None)
    if not callable(function):
        functions = [one for one, value in vars(module).items() if inspect.isfunction(value)]
        raise ConfigError(f"`{key}.name`: {path} has no function {name!r}; it has {', '.join(functions) or 'none'}.")
    return function
