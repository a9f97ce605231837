"""data=verifiers: the tasks of an environment for the `verifiers` library."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any

from pggrpo_cli.errors import ConfigError, DataError
from pggrpo_cli.ranges import Range
from pggrpo_cli.records import divided
from pggrpo_cli.types import Dataset, Message, Row
from pggrpo_cli.verifiers_environment import load_taskset


@dataclass(frozen=True, kw_only=True)
class Verifiers:
    """At most `size` tasks of the environment's taskset, in its order. Columns: the fields that the environment adds to
    TaskData, by name, and all of them in `task_data` for the reward of the same name."""

    environment: str
    options: dict[str, Any]
    size: Annotated[int | None, Range(ge=1)]
    eval_size: Annotated[int, Range(ge=0)]

    def load(self, seed: int) -> Dataset:
        taskset = load_taskset(self.environment, self.options, "data")
        if not taskset.bounded and self.size is None:
            raise ConfigError(
                f"`data.size`: the tasks of {self.environment!r} never end; say how many: data.size=1000."
            )
        rows = list(self._rows(islice(taskset, self.size)))
        if not rows:
            raise DataError(f"`data.environment`: {self.environment!r} has no tasks.")
        return divided(rows, None, self.eval_size, seed, "data.eval_size")

    def _rows(self, tasks: Iterator[Any]) -> Iterator[Row]:
        from verifiers.v1 import TaskData

        for number, task in enumerate(tasks):
            data = task.data.model_dump(mode="json", exclude_none=True)
            own = {name: value for name, value in data.items() if name not in TaskData.model_fields}
            source = f"{self.environment}:{number}"
            yield Row(prompt=_messages(task.data, source), columns={**own, "task_data": data}, source=source)


def _messages(data: Any, source: str) -> list[Message]:
    """The conversation that the model answers."""
    if data.prompt is None:
        raise DataError(f"{source}: the task has no prompt (its user opens the conversation); here a prompt is needed.")
    asked = data.prompt if isinstance(data.prompt, str) else [one.model_dump(exclude_none=True) for one in data.prompt]
    messages = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
    if any(not isinstance(one.get("content", ""), str) for one in messages):
        raise DataError(f"{source}: the prompt has parts that are no text; only text can be rendered.")
    opening = [] if data.system_prompt is None else [{"role": "system", "content": data.system_prompt}]
    return [*opening, *messages]
