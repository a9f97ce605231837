"""An environment package for Prime Intellect's `verifiers` library (0.4), as far as one completion a prompt needs it.

Since 0.4 an environment is a Taskset: it loads Tasks, whose @reward and @metric methods and judges score a Trace of what
was said. Task.score(trace) without a runtime is the library's own way to score again offline. What needs more than a
reply (tools, a container, several turns or speakers) is refused: here a model answers once.
"""

from __future__ import annotations

import inspect
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pggrpo_cli.errors import ConfigError

OLDEST = (0, 4)
LIFECYCLE = ("setup", "finalize", "stage_verifier")
"""Methods of a Task that work on its runtime."""


def load_taskset(environment: str, options: dict[str, Any], key: str) -> Any:
    """The taskset of the environment `environment`, with `options` for its TasksetConfig. `key`: of our node, for errors.

    Raises ConfigError if there is none, or if it needs more than one reply.
    """
    _require_library(key)
    from pydantic import ValidationError
    from verifiers.v1.utils import loaders

    try:
        config = loaders.taskset_config_type(environment).model_validate({**options, "id": environment})
        taskset = loaders.load_taskset(config)
    except ModuleNotFoundError as error:
        why = error.__cause__ or error
        raise ConfigError(
            f"`{key}.environment`: {environment!r} cannot be imported ({why}). Install the environment's package, or start "
            "where its module lies."
        ) from error
    except (AttributeError, TypeError) as error:
        raise ConfigError(
            f"`{key}.environment`: {environment!r} exports no Taskset ({error}). Environments with load_environment and a "
            "Rubric are those of verifiers before 0.4, which are not supported."
        ) from error
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise ConfigError(f"`{key}.options`: {environment} refuses them: {wrong}.") from error
    _refuse_many_turns(environment, taskset, key)
    return taskset


def installed_version() -> str:
    """Empty if the library is not installed."""
    try:
        return version("verifiers")
    except PackageNotFoundError:
        return ""


def refuse_runtime(task: Any, environment: str, key: str) -> None:
    """Raises ConfigError for a task that has no reward, or whose rewards ask for the runtime that a program ran in."""
    judges = task.plugged_judges()
    signals = [*task.hooks("reward"), *(judge.score for judge in judges)]
    if not signals:
        raise ConfigError(f"`{key}.environment`: the tasks of {environment!r} have no reward and no judge.")
    for signal in [*signals, *task.hooks("metric")]:
        parameter = inspect.signature(signal).parameters.get("runtime")
        if parameter is not None and parameter.default is parameter.empty:
            raise ConfigError(
                f"`{key}.environment`: {signal.__qualname__} of {environment!r} looks into the runtime that a program ran "
                "in; here a model answers once, and nothing runs."
            )


def _require_library(key: str) -> None:
    found = installed_version()
    numbers = tuple(int(part) for part in found.split(".")[:2] if part.isdigit())
    if numbers < OLDEST:
        what = f"version {found} is installed" if found else "is not installed"
        raise ConfigError(
            f"`{key}`: the verifiers library {what}; 0.4 or later is needed, on Python 3.11 or later: "
            "pip install 'pggrpo[verifiers]'"
        )


def _refuse_many_turns(environment: str, taskset: Any, key: str) -> None:
    import verifiers.v1 as vf
    from verifiers.v1.utils import loaders
    from verifiers.v1.utils.decorators import discover_decorated

    kind = taskset.task_type()
    own_work = [name for name in LIFECYCLE if getattr(kind, name) is not getattr(vf.Task, name)]
    reasons = {
        "an Env of its own says who speaks": loaders.environment_class(environment) is not vf.SingleAgentEnv,
        "it brings a harness": loaders.default_harness_id(environment) == environment,
        "its tasks need a container": kind.NEEDS_CONTAINER,
        "its model has tools": bool(type(taskset).toolsets(taskset.config) or kind.toolsets(taskset.config.task)),
        f"its tasks have a {' and a '.join(own_work)}": bool(own_work),
        "it changes what is said (@vf.intercept)": bool(discover_decorated(kind.__new__(kind), "intercept")),
    }
    true = [reason for reason, holds in reasons.items() if holds]
    if true:
        raise ConfigError(
            f"`{key}.environment`: {environment!r} is not an environment of one reply a prompt: {', '.join(true)}. Here a "
            "model answers once."
        )
