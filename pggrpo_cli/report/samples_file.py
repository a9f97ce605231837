"""samples.jsonl: where each step's completions lie in it, so that of a file of gigabytes only what is shown is read."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

_PREFIX = re.compile(rb'\{"step": (\d{1,18}), "held_out": (true|false)[,}]')
"""As recorder.py writes it: a line's step is known without reading the line."""


@dataclass(frozen=True, slots=True)
class Completion:
    """One line."""

    step: int
    held_out: bool
    prompt_index: int
    sample: int
    prompt: str
    completion: str
    finish_reason: str
    reward: float | None
    terms: dict[str, float | None]
    advantage: float | None
    prompt_ids: tuple[int, ...] | None = None
    completion_ids: tuple[int, ...] | None = None
    logprobs: tuple[float, ...] | None = None
    """Of its tokens, as they were sampled; these three are None where the file has none, as of earlier releases."""

    @property
    def scored(self) -> float:
        """The reward of one that has a reward."""
        assert self.reward is not None
        return self.reward


@dataclass(slots=True)
class _Block:
    """The lines of one step, one behind the other."""

    start: int
    end: int
    count: int


class Samples:
    """Indexed in one pass; a step is read when it is asked for."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._blocks: dict[tuple[int, bool], _Block] = {}
        if file.is_file():
            self._index()

    def steps(self, *, held_out: bool) -> list[int]:
        """Those that left completions, in order."""
        return sorted(step for step, of_evaluation in self._blocks if of_evaluation == held_out)

    def count(self, step: int, *, held_out: bool) -> int:
        block = self._blocks.get((step, held_out))
        return 0 if block is None else block.count

    def read(self, step: int, *, held_out: bool) -> list[Completion]:
        """The completions of one step, in the file's order; broken lines are left out."""
        block = self._blocks.get((step, held_out))
        if block is None:
            return []
        with open(self._file, "rb") as file:
            file.seek(block.start)
            lines = file.read(block.end - block.start).split(b"\n")
        found = (_completion(line) for line in lines)
        return _with_prompts(one for one in found if one is not None and (one.step, one.held_out) == (step, held_out))

    def _index(self) -> None:
        last: tuple[int, bool] | None = None
        for start, raw in _lines(self._file):
            key = _key(raw)
            if key is None:
                continue
            block = self._blocks.get(key)
            if block is None or key != last:
                # A step that comes again, after others, was done again: its later lines count.
                self._blocks[key] = block = _Block(start, start, 0)
            block.end = start + len(raw)
            block.count += 1
            last = key


def _with_prompts(completions: Iterable[Completion]) -> list[Completion]:
    """A group has its prompt's tokens once, with its first completion."""
    found: list[Completion] = []
    for one in completions:
        before = found[-1] if found else None
        if one.prompt_ids is None and before is not None and before.prompt_index == one.prompt_index:
            one = replace(one, prompt_ids=before.prompt_ids)
        found.append(one)
    return found


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """(offset, line) of each that is whole."""
    offset = 0
    with open(file, "rb") as lines:
        for raw in lines:
            if raw.endswith(b"\n"):
                yield offset, raw
            offset += len(raw)


def _key(raw: bytes) -> tuple[int, bool] | None:
    found = _PREFIX.match(raw)
    if found is not None:
        return int(found[1]), found[2] == b"true"
    one = _completion(raw)
    return None if one is None else (one.step, one.held_out)


def _completion(raw: bytes) -> Completion | None:
    try:
        record = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not isinstance(record.get("step"), int):
        return None
    terms = record.get("reward_terms")
    return Completion(
        step=record["step"],
        held_out=record.get("held_out") is True,
        prompt_index=_whole(record.get("prompt_index")),
        sample=_whole(record.get("sample")),
        prompt=_text(record.get("prompt")),
        completion=_text(record.get("completion")),
        finish_reason=_text(record.get("finish_reason")),
        reward=_number(record.get("reward")),
        terms={str(name): _number(value) for name, value in terms.items()} if isinstance(terms, Mapping) else {},
        advantage=_number(record.get("advantage")),
        prompt_ids=_ids(record.get("prompt_ids")),
        completion_ids=_ids(record.get("completion_ids")),
        logprobs=_logprobs(record.get("logprobs")),
    )


def _ids(value: Any) -> tuple[int, ...] | None:
    there = isinstance(value, list) and value and all(type(one) is int and one >= 0 for one in value)
    return tuple(value) if there else None


def _logprobs(value: Any) -> tuple[float, ...] | None:
    numbers = [_number(one) for one in value] if isinstance(value, list) else []
    return None if None in numbers or not numbers else tuple(one for one in numbers if one is not None)


def _whole(value: Any) -> int:
    return value if isinstance(value, int) else -1


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None
