"""reward=python: a function of your own, with TRL's signature, verl's, or that of a plain function of one completion."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal

from pggrpo_cli.errors import UserCodeError
from pggrpo_cli.types import Sample, Scores
from pggrpo_cli.user_file import load_function

Style = Literal["TRL", "verl", "plain"]


@dataclass(frozen=True, kw_only=True)
class Python:
    """The function `name` in the file `path`; the names of its parameters tell how it is called. It may be async.

    TRL: name(prompts, completions, completion_ids, **columns) -> list[float | None], each a list with one entry a
    completion; also trainer_state (with global_step alone), log_metric(name, value) and log_extra(column, values). For
    conversational rows prompts and completions are lists of messages.
    verl: name(data_source, solution_str, ground_truth, extra_info) -> float or a dictionary with `score`. The ground
    truth is the column ground_truth, or reward_model's, or answer.
    plain: name(completion, prompt, **columns) -> float | None, completions being texts.
    Each gets the parameters it names, and everything if it takes **kwargs.
    """

    path: str
    name: str

    def score(self, samples: Sequence[Sample]) -> Any:
        function = _load(self.path, self.name)
        style = self._style(function)
        if style == "TRL":
            return self._as_trl(function, samples)
        arguments = _verl_arguments if style == "verl" else _plain_arguments
        calls = [self._taken(function, arguments(sample)) for sample in samples]
        return _scores(_each(function, calls))

    def describe(self) -> str:
        """How it is called, for the plan."""
        function = _load(self.path, self.name)
        return f"{self.name}{inspect.signature(function)} in {self.path} is called as {WORDS[self._style(function)]}"

    def _style(self, function: Callable[..., Any]) -> Style:
        parameters = inspect.signature(function).parameters.values()
        names = [parameter.name for parameter in parameters]
        if "solution_str" in names:
            return "verl"
        if "completions" in names or (names and all(one.kind is one.VAR_KEYWORD for one in parameters)):
            return "TRL"
        if "completion" in names:
            return "plain"
        raise UserCodeError(
            f"`reward.python.name`: the parameters of {self.name}({', '.join(names)}) do not tell how it is called. Name "
            "them prompts, completions and columns (lists, as in TRL), completion and columns (one at a time), or "
            "data_source, solution_str, ground_truth, extra_info (as in verl)."
        )

    def _as_trl(self, function: Callable[..., Any], samples: Sequence[Sample]) -> Scores:
        names = sorted({name for sample in samples for name in sample.columns})
        arguments: dict[str, Any] = {name: [sample.columns.get(name) for sample in samples] for name in names}
        metrics: dict[str, float] = {}
        columns: dict[str, Sequence[Any]] = {}
        arguments["prompts"] = [sample.prompt for sample in samples]
        arguments["completions"] = [_as_messages(sample) for sample in samples]
        arguments["completion_ids"] = [sample.completion_ids for sample in samples]
        arguments["trainer_state"] = SimpleNamespace(global_step=max(0, samples[0].step - 1) if samples else 0)
        arguments["log_metric"] = lambda name, value: metrics.update({name: float(value)})
        arguments["log_extra"] = lambda name, values: columns.update({name: values})
        returned = function(**self._taken(function, arguments))
        return Scores(scores=_awaited(returned), metrics=metrics, columns=columns)

    def _taken(self, function: Callable[..., Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Those of `arguments` that the function takes. Raises UserCodeError if it asks for others."""
        parameters = inspect.signature(function).parameters.values()
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
                f"column of the data; there are {', '.join(arguments)}."
            )
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            return dict(arguments)
        wanted = {parameter.name for parameter in parameters}
        return {name: value for name, value in arguments.items() if name in wanted}


WORDS: Mapping[Style, str] = {
    "TRL": "TRL does: lists of prompts, completions and columns",
    "verl": "verl does: data_source, solution_str, ground_truth, extra_info",
    "plain": "a plain function: one completion at a time",
}


def _as_messages(sample: Sample) -> Any:
    return (
        sample.completion if isinstance(sample.prompt, str) else [{"role": "assistant", "content": sample.completion}]
    )


def _plain_arguments(sample: Sample) -> dict[str, Any]:
    own = {"completion": sample.completion, "prompt": sample.prompt, "completion_ids": sample.completion_ids}
    return {**sample.columns, **own}


def _verl_arguments(sample: Sample) -> dict[str, Any]:
    columns = sample.columns
    nested = columns.get("reward_model")
    truths = [columns.get("ground_truth"), nested.get("ground_truth") if isinstance(nested, Mapping) else None]
    truth = next((one for one in (*truths, columns.get("answer")) if one is not None), None)
    return {
        **columns,
        "data_source": columns.get("data_source", ""),
        "solution_str": sample.completion,
        "ground_truth": truth,
        "extra_info": columns.get("extra_info"),
    }


def _each(function: Callable[..., Any], calls: Sequence[Mapping[str, Any]]) -> list[Any]:
    """What the calls return; those that are async wait side by side."""
    returned = [function(**arguments) for arguments in calls]
    if not any(inspect.isawaitable(one) for one in returned):
        return returned

    async def result(one: Any) -> Any:
        return await one if inspect.isawaitable(one) else one

    async def together() -> list[Any]:
        return list(await asyncio.gather(*map(result, returned)))

    return asyncio.run(together())


def _scores(returned: Sequence[Any]) -> Scores:
    """Numbers, or verl's dictionaries: `score`, and what else is worth a look."""
    if not any(isinstance(one, Mapping) for one in returned):
        return Scores(scores=returned)
    scores = [one.get("score", one) if isinstance(one, Mapping) else one for one in returned]
    names = {name for one in returned if isinstance(one, Mapping) for name in one if name != "score"}
    columns = {
        str(name): [one.get(name) if isinstance(one, Mapping) else None for one in returned] for name in sorted(names)
    }
    return Scores(scores=scores, columns=columns)


def _awaited(scores: Any) -> Any:
    return asyncio.run(scores) if inspect.iscoroutine(scores) else scores


def _load(path: str, name: str) -> Callable[..., Any]:
    return load_function(path, name, "reward.python")
