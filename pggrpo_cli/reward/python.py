"""reward=python: a function of your own, with TRL's signature."""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pggrpo_cli.errors import ConfigError, UserCodeError
from pggrpo_cli.types import Sample


@dataclass(frozen=True, kw_only=True)
class Python:
    """name(prompts, completions, completion_ids, **columns) -> list[float | None], from the file `path`.

    Each is a list with one entry a completion; columns come by name. The function gets those it names, all if it takes
    **kwargs; it may be async. For conversational rows prompts and completions are lists of messages, as TRL passes them.
    """

    path: str
    name: str

    def score(self, samples: Sequence[Sample]) -> Any:
        function = _load(self.path, self.name)
        names = {name for sample in samples for name in sample.columns}
        arguments: dict[str, list[Any]] = {
            name: [sample.columns.get(name) for sample in samples] for name in sorted(names)
        }
        arguments["prompts"] = [sample.prompt for sample in samples]
        arguments["completions"] = [
            sample.completion
            if isinstance(sample.prompt, str)
            else [{"role": "assistant", "content": sample.completion}]
            for sample in samples
        ]
        arguments["completion_ids"] = [sample.completion_ids for sample in samples]
        parameters = inspect.signature(function).parameters.values()
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            wanted = {parameter.name for parameter in parameters}
            arguments = {name: value for name, value in arguments.items() if name in wanted}
        missing = [
            parameter.name
            for parameter in parameters
            if parameter.default is parameter.empty
            and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
            and parameter.name not in arguments
        ]
        if missing:
            raise UserCodeError(
                f"`reward.python`: {self.name} in {self.path} asks for {', '.join(map(repr, missing))}, which is no "
                f"column of the data; there are prompts, completions, completion_ids, {', '.join(sorted(names))}."
            )
        scores = function(**arguments)
        return asyncio.run(scores) if inspect.iscoroutine(scores) else scores


@lru_cache(maxsize=32)
def _load(path: str, name: str) -> Callable[..., Any]:
    file = Path(path).expanduser().resolve()
    if not file.is_file():
        raise ConfigError(f"`reward.python.path`: there is no file {path} (looked in {Path.cwd()}).")
    spec = importlib.util.spec_from_file_location(f"pggrpo_user_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise ConfigError(f"`reward.python.path`: {path} is no Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickles look their module up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[spec.name]
        raise UserCodeError(f"`reward.python.path`: {path} raised {type(error).__name__} when read: {error}") from error
    function = getattr(module, name, None)
    if not callable(function):
        functions = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        raise ConfigError(
            f"`reward.python.name`: {path} has no function {name!r}; it has {', '.join(functions) or 'none'}."
        )
    return function
