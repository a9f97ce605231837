"""data=small_programs: tasks of one small function each, with tests, made by rules. For reward=code_tests."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from pggrpo_cli.errors import ConfigError
from pggrpo_cli.ranges import Range
from pggrpo_cli.shuffling import split
from pggrpo_cli.types import Dataset, Row

WORDS = ("apple", "river", "stone", "Level", "moon", "paper", "banana", "Tree", "noon", "window", "sky", "Letter")
Draw = Callable[[random.Random], tuple[Any, ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """A function: its name and parameters, what it returns in words, and a right one."""

    signature: str
    words: str
    right: Callable[..., Any]
    draw: Draw
    """Arguments of one test."""


@dataclass(frozen=True, kw_only=True)
class SmallPrograms:
    """Every task once, with `tests_per_task` different asserts (fewer where there are not so many arguments) in the column
    `tests`; their arguments are drawn with `data_seed`. Further columns: `signature`, `task` (the words).
    """

    tests_per_task: Annotated[int, Range(ge=1)]
    eval_size: Annotated[int, Range(ge=0)]
    data_seed: int
    as_chat: bool

    def load(self, seed: int) -> Dataset:
        rows = [self._row(task) for task in tasks()]
        if len(rows) <= self.eval_size:
            raise ConfigError(
                f"`data.eval_size`: {self.eval_size} of {len(rows)} tasks held out leaves none to train on."
            )
        train, evaluation = split(rows, self.eval_size, seed)
        return Dataset(train=train, evaluation=evaluation)

    def _row(self, task: Task) -> Row:
        question = f"Write a Python function `{task.signature}` that returns {task.words}."
        prompt: Any = [{"role": "user", "content": question}] if self.as_chat else question
        columns = {"tests": self._tests(task), "signature": task.signature, "task": task.words}
        return Row(prompt=prompt, columns=columns, source=f"small_programs:{task.signature}")

    def _tests(self, task: Task) -> list[str]:
        generator = random.Random(f"{self.data_seed}|{task.signature}")
        name = task.signature.partition("(")[0]
        found: dict[str, None] = {}
        for _ in range(20 * self.tests_per_task):
            arguments = task.draw(generator)
            words = ", ".join(map(repr, arguments))
            found[f"assert {name}({words}) == {task.right(*arguments)!r}"] = None
            if len(found) == self.tests_per_task:
                break
        return list(found)


def _number(generator: random.Random) -> tuple[int]:
    return (generator.randint(-50, 50),)


def _two_numbers(generator: random.Random) -> tuple[int, int]:
    return generator.randint(-50, 50), generator.randint(-50, 50)


def _numbers(generator: random.Random) -> tuple[list[int]]:
    return ([generator.randint(-20, 20) for _ in range(generator.randint(3, 6))],)


def _word(generator: random.Random) -> tuple[str]:
    return (generator.choice(WORDS),)


def _two_words(generator: random.Random) -> tuple[str, str]:
    return generator.choice(WORDS), generator.choice(WORDS)


def tasks() -> Iterator[Task]:
    """All of them, in a fixed order."""
    yield from _with_a_constant()
    yield from _of_numbers()
    yield from _of_lists()
    yield from _of_words()


def _task(signature: str, words: str, right: Callable[..., Any], draw: Draw) -> Task:
    return Task(signature=signature, words=words, right=right, draw=draw)


def _with_a_constant() -> Iterator[Task]:
    for n in range(2, 14):
        yield _task(f"add_{n}(x)", f"x plus {n}", lambda x, n=n: x + n, _number)
        yield _task(f"subtract_{n}(x)", f"x minus {n}", lambda x, n=n: x - n, _number)
        yield _task(f"times_{n}(x)", f"x times {n}", lambda x, n=n: x * n, _number)
        yield _task(f"remainder_{n}(x)", f"the remainder of x divided by {n}", lambda x, n=n: x % n, _number)
        yield _task(
            f"divisible_by_{n}(x)", f"True if x is divisible by {n}, else False", lambda x, n=n: x % n == 0, _number
        )
        yield _task(f"above_{n}(x)", f"True if x is greater than {n}, else False", lambda x, n=n: x > n, _number)
        yield _task(
            f"sum_times_{n}(a, b)", f"the sum of a and b times {n}", lambda a, b, n=n: (a + b) * n, _two_numbers
        )
    for n in range(2, 6):
        yield _task(f"power_{n}(x)", f"x to the power of {n}", lambda x, n=n: x**n, _number)
        yield _task(f"repeat_{n}(s)", f"the string s repeated {n} times", lambda s, n=n: s * n, _word)
        yield _task(f"first_{n}(s)", f"the first {n} characters of the string s", lambda s, n=n: s[:n], _word)
        yield _task(f"last_{n}(s)", f"the last {n} characters of the string s", lambda s, n=n: s[-n:], _word)
    for letter in "aeot":
        yield _task(
            f"count_{letter}(s)", f'how often "{letter}" is in the string s', lambda s, c=letter: s.count(c), _word
        )


def _of_numbers() -> Iterator[Task]:
    yield _task("add(a, b)", "the sum of a and b", lambda a, b: a + b, _two_numbers)
    yield _task("subtract(a, b)", "a minus b", lambda a, b: a - b, _two_numbers)
    yield _task("multiply(a, b)", "the product of a and b", lambda a, b: a * b, _two_numbers)
    yield _task("larger(a, b)", "the larger of a and b", max, _two_numbers)
    yield _task("smaller(a, b)", "the smaller of a and b", min, _two_numbers)
    yield _task("is_equal(a, b)", "True if a equals b, else False", lambda a, b: a == b, _two_numbers)
    yield _task("square(x)", "the square of x", lambda x: x * x, _number)
    yield _task("double(x)", "x times 2", lambda x: x * 2, _number)
    yield _task("negate(x)", "minus x", lambda x: -x, _number)
    yield _task("absolute(x)", "the absolute value of x", abs, _number)
    yield _task("is_even(x)", "True if x is even, else False", lambda x: x % 2 == 0, _number)
    yield _task("is_odd(x)", "True if x is odd, else False", lambda x: x % 2 == 1, _number)
    yield _task("is_positive(x)", "True if x is greater than 0, else False", lambda x: x > 0, _number)


def _of_lists() -> Iterator[Task]:
    yield _task("total(numbers)", "the sum of the list numbers", sum, _numbers)
    yield _task("largest(numbers)", "the largest number of the list numbers", max, _numbers)
    yield _task("smallest(numbers)", "the smallest number of the list numbers", min, _numbers)
    yield _task("count(numbers)", "the length of the list numbers", len, _numbers)
    yield _task("first(numbers)", "the first element of the list numbers", lambda n: n[0], _numbers)
    yield _task("last(numbers)", "the last element of the list numbers", lambda n: n[-1], _numbers)
    yield _task("backwards(numbers)", "the list numbers in reverse order", lambda n: n[::-1], _numbers)
    yield _task("ascending(numbers)", "the list numbers sorted in ascending order", sorted, _numbers)
    yield _task("doubled(numbers)", "a list with every number times 2", lambda n: [2 * one for one in n], _numbers)
    yield _task("evens(numbers)", "a list of the even numbers only", lambda n: [x for x in n if x % 2 == 0], _numbers)


def _of_words() -> Iterator[Task]:
    yield _task("length(s)", "the length of the string s", len, _word)
    yield _task("upper(s)", "the string s in upper case", str.upper, _word)
    yield _task("lower(s)", "the string s in lower case", str.lower, _word)
    yield _task("reverse(s)", "the string s reversed", lambda s: s[::-1], _word)
    yield _task("initial(s)", "the first character of the string s", lambda s: s[0], _word)
    yield _task("join(s, t)", "the strings s and t joined together", lambda s, t: s + t, _two_words)
    yield _task("greet(name)", 'the string "Hello, " followed by name', lambda name: "Hello, " + name, _word)
