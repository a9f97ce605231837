"""reward=reasoning_gym: the task's own scorer, for data=reasoning_gym."""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pggrpo_cli.errors import ConfigError, DataError
from pggrpo_cli.types import Sample

LITERAL_ANSWERS = ("binary_matrix", "n_queens", "spiral_matrix", "string_insertion")
"""Tasks whose scorer calls eval() on the answer, which a model wrote; it means a list."""

SYMBOLIC_ANSWERS = (
    *("countdown", "intermediate_integration", "polynomial_multiplication", "propositional_logic", "puzzle24"),
    "simple_integration",
)
"""Tasks whose scorer gives the answer to sympy's parse_expr, which evaluates it as Python."""

FUNCTIONS = "sqrt|exp|log|ln|a?(?:sin|cos|tan|sec|csc|cot)h?|abs|Abs|erf|gamma|Integral|And|Or|Not|Implies"
UNSAFE = re.compile(rf"__|[\"'`\[{{:;@\\]|\.\s*[^\W\d]|(?!\b(?:{FUNCTIONS}|\w)\s*\()\b[^\W\d]\w*\s*\(|\blambda\b")
"""What no formula needs and an attack does: strings, attributes, calls of anything but a known function."""


@dataclass(frozen=True, kw_only=True)
class ReasoningGym:
    """score_answer(answer, entry) of the row's task with its parameters, in [0, 1]. `pattern` takes the answer out of
    the completion first (last match, its first group if it has one); no match is no answer. An answer on which the
    scorer itself fails, though it can score the right one, is worth 0: several scorers raise on text that they do not
    expect.
    """

    pattern: str | None

    def score(self, samples: Sequence[Sample]) -> list[float | None]:
        return [float(self._score(sample)) for sample in samples]

    def _score(self, sample: Sample) -> float:
        task = sample.columns.get("task")
        if task is None:
            raise DataError("`reward.reasoning_gym`: the rows name no task; it scores rows of data=reasoning_gym.")
        answer: str | None = sample.completion.strip()
        if self.pattern is not None:
            found = [match.group(match.re.groups and 1) for match in re.finditer(self.pattern, sample.completion)]
            answer = found[-1].strip() if found else None
        if task in SYMBOLIC_ANSWERS and UNSAFE.search(answer or ""):
            return 0.0
        scorer = _scorer(task, json.dumps(sample.columns.get("params", {}), sort_keys=True, default=str))
        try:
            score: float = scorer.score_answer(answer, sample.columns)
        except Exception:
            scorer.score_answer(sample.columns["answer"], sample.columns)  # raises too, if it is not the answer's fault
            return 0.0
        return score


@lru_cache(maxsize=8)
def _scorer(task: str, params: str) -> Any:
    try:
        import reasoning_gym
    except ImportError as error:
        raise ConfigError("`reward.reasoning_gym`: not installed: pip install 'pggrpo[tasks]'") from error
    dataset = reasoning_gym.create_dataset(task, size=1, seed=0, **json.loads(params))
    if task in LITERAL_ANSWERS:
        vars(sys.modules[type(dataset).__module__])["eval"] = ast.literal_eval
    return dataset
