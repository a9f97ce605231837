"""reward=verifiers: the rewards and judges of an environment for the `verifiers` library."""

from __future__ import annotations

import asyncio
import math
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from pggrpo_cli.errors import DataError
from pggrpo_cli.ranges import Range
from pggrpo_cli.types import RewardContext, Sample, ScoreError, Scores
from pggrpo_cli.verifiers_environment import installed_version, load_taskset, refuse_runtime


@dataclass(frozen=True, kw_only=True)
class Verifiers:
    """Σ weight · score over the @reward methods and judges of the row's Task, as Task.score(trace) of the library gives it;
    each of them, and each @metric, is a column of samples.jsonl.

    `concurrency` completions of a call are scored at once. Each may take its share of the call's `deadline_s`: divided by
    the rounds that they take, so that the call ends in time even if all hang. One that takes longer is a ScoreError.

    The trace holds the prompt and, as the model's one reply, the whole completion. The task is rebuilt from the column
    `task_data` of data=verifiers; with other data, from the columns that the environment's TaskData has.
    """

    environment: str
    options: dict[str, Any]
    concurrency: Annotated[int, Range(ge=1, le=1024)]
    deadline_s: Annotated[float, Range(gt=0)]

    @contextmanager
    def open(self, context: RewardContext) -> Iterator[OpenVerifiers]:
        yield OpenVerifiers(self, load_taskset(self.environment, self.options, "reward.verifiers"))


class OpenVerifiers:
    """The environment, loaded."""

    def __init__(self, settings: Verifiers, taskset: Any) -> None:
        self._settings, self._environment, self._taskset = settings, settings.environment, taskset
        self._accepted = False

    def describe(self) -> str:
        kind = self._taskset.task_type().__name__
        return f"{kind} of {self._environment} scores, by verifiers {installed_version()}"

    def score(self, samples: Sequence[Sample]) -> Scores:
        tasks = [self._task(sample) for sample in samples]
        traces = [_trace(task, sample) for task, sample in zip(tasks, samples, strict=True)]
        failed = asyncio.run(_score_all(tasks, traces, self._settings.concurrency, self._settings.deadline_s))
        columns: dict[str, list[float | None]] = {}
        for place, trace in enumerate(traces):
            rewards = {name: one.score for name, one in trace.rewards.items() if one is not None}
            for name, value in (trace.metrics | rewards).items():
                columns.setdefault(name, [None] * len(samples))[place] = value
        scores = [error or trace.reward for error, trace in zip(failed, traces, strict=True)]
        return Scores(scores=scores, columns=columns)

    def _task(self, sample: Sample) -> Any:
        from pydantic import ValidationError

        kind = self._taskset.task_type()
        given = sample.columns.get("task_data") or _task_data(sample)
        try:
            data = kind.data_type().model_validate(given)
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
            raise DataError(
                f"`reward.verifiers`: the rows do not make a {kind.data_type().__name__} of {self._environment}: {wrong}. "
                f"data=verifiers data.environment={self._environment} has its own rows."
            ) from error
        task = kind(data, self._taskset.config.task)
        if not self._accepted:
            refuse_runtime(task, self._environment, "reward.verifiers")
            self._accepted = True
        return task


def _task_data(sample: Sample) -> dict[str, Any]:
    """For rows of other data: a lone question is text, as environments write it, and a system prompt stands apart."""
    if isinstance(sample.prompt, str):
        return sample.columns | {"prompt": sample.prompt}
    system = [one["content"] for one in sample.prompt[:1] if one["role"] == "system"]
    rest = sample.prompt[len(system) :]
    lone = len(rest) == 1 and rest[0]["role"] == "user"
    return sample.columns | {"prompt": rest[0]["content"] if lone else rest, "system_prompt": next(iter(system), None)}


async def _score_all(
    tasks: Sequence[Any], traces: Sequence[Any], concurrency: int, deadline_s: float
) -> list[ScoreError | None]:
    share = deadline_s / max(1, math.ceil(len(tasks) / concurrency))
    free = asyncio.Semaphore(concurrency)

    async def one(task: Any, trace: Any) -> ScoreError | None:
        async with free:
            scoring = asyncio.ensure_future(task.score(trace))
            # Unlike wait_for it neither waits for what ignores its cancellation nor takes a reward's own TimeoutError for it.
            await asyncio.wait([scoring], timeout=share)
        if not scoring.done():
            scoring.cancel()
            return ScoreError(message=f"was not scored within {share:g} seconds (deadline_s={deadline_s:g})")
        try:
            scoring.result()
        except Exception as error:
            cause = error.__cause__ or error  # the library wraps what an environment's code raises
            return ScoreError(
                message=f"raised {type(cause).__name__}: {cause}", traceback="".join(traceback.format_exception(cause))
            )
        return None

    return list(await asyncio.gather(*(one(task, trace) for task, trace in zip(tasks, traces, strict=True))))


def _trace(task: Any, sample: Sample) -> Any:
    """What the library's own rollout of one reply leaves behind."""
    import verifiers.v1 as vf
    from pydantic import TypeAdapter, ValidationError
    from verifiers.v1.state import state_cls

    prompt = [{"role": "user", "content": sample.prompt}] if isinstance(sample.prompt, str) else sample.prompt
    try:
        messages = TypeAdapter(vf.Messages).validate_python(prompt)
    except ValidationError as error:
        raise DataError(
            f"`reward.verifiers`: the library does not take this prompt: {error.errors()[0]['msg']}."
        ) from error
    nodes = [vf.MessageNode(parent=place - 1 if place else None, message=one) for place, one in enumerate(messages)]
    reply = vf.MessageNode(
        parent=len(nodes) - 1,
        message=vf.AssistantMessage(content=sample.completion),
        sampled=True,
        token_ids=sample.completion_ids,
        mask=[True] * len(sample.completion_ids),
    )
    finish = "length" if sample.finish_reason == "length" else "stop"
    trace = vf.Trace(
        verifiers=vf.VersionInfo(version=installed_version()),
        task=vf.TraceTask(type=type(task).__name__, data=task.data, key=task.key, hash=task.hash),
        agent=vf.AgentInfo(config=vf.AgentConfig(harness={"id": "null"})),
        nodes=[*nodes, reply],
        calls=[vf.ModelCall(node=len(nodes), finish_reason=finish)],
        state=state_cls(type(task))(),
        ok=True,
    )
    trace.stop("agent_completed")
    return trace
