"""Environments for the verifiers library that the tests write into a folder of their own, each a module."""

from __future__ import annotations

from pathlib import Path

SUMS = '''
import asyncio
import verifiers.v1 as vf


class SumData(vf.TaskData):
    answer: str
    info: dict = {}


class SumConfig(vf.TasksetConfig):
    count: int = 6


class Sum(vf.Task[SumData]):
    @vf.reward
    async def correct(self, trace) -> float:
        await asyncio.sleep(self.data.info.get("seconds", 0))
        if trace.last_reply == "crash":
            raise ValueError("this reply")
        return float(trace.last_reply == self.data.answer)

    @vf.reward(weight=0.5)
    async def brief(self, task, trace) -> float:
        return float(len(trace.assistant_messages[-1].content) <= task.info["limit"])

    @vf.metric
    async def saw(self, trace) -> float:
        """10 for a system prompt, 1 for a question that is the task's, 100 for a truncated reply."""
        system, question, _ = trace.messages
        seen = 10.0 * (system.content == self.data.system_prompt) + (self.data.prompt in question.content)
        return seen + 100.0 * trace.is_truncated


class Sums(vf.Taskset[Sum, SumConfig]):
    def load(self):
        for number in range(self.config.count):
            yield Sum(
                SumData(
                    prompt=f"{number} + 1 = ?",
                    system_prompt="Only the number.",
                    answer=str(number + 1),
                    info={"limit": 2},
                ),
                self.config.task,
            )


__all__ = ["Sums"]
'''
TASKSET = """
import verifiers.v1 as vf
class One(vf.Task):
    {body}
class Ones(vf.Taskset[One]):
    {more}
    def load(self):
        yield One(vf.TaskData(prompt="p"))
class Own(vf.Env):
    async def run(self, task, agents): ...
__all__ = ["Ones"{exported}]
"""
GOOD = "@vf.reward\n    async def good(self, trace) -> float: return 1.0"


def environment(body: str = GOOD, more: str = "", exported: str = "") -> str:
    return TASKSET.format(body=body, more=more, exported=exported)


ENVIRONMENTS = {
    "sums_env": SUMS,
    "runtime_env": environment("@vf.reward\n    async def tests_pass(self, trace, runtime) -> float: return 1.0"),
    "setup_env": environment(f"{GOOD}\n    async def setup(self, trace, runtime): ..."),
    "container_env": environment(f"NEEDS_CONTAINER = True\n    {GOOD}"),
    "tools_env": environment(f"{GOOD}\n    @classmethod\n    def toolsets(cls, config): return [object()]"),
    "speakers_env": environment(exported=', "Own"'),
    "worthless_env": environment("pass"),
    "endless_env": environment(more="INFINITE = True"),
    "old_env": "def load_environment(): ...\n",
    "broken_env": "import nothing_of_this_name\n",
}


def write_environments(folder: Path) -> None:
    for name, source in ENVIRONMENTS.items():
        (folder / f"{name}.py").write_text(source)
