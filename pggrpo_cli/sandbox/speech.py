"""How the program's process and that of the tests speak, by way of the trainer. Runs inside a sandbox.

What the program defines stands in the tests' process as a Proxy, and a call of it travels as plain values. A message is 4
bytes of length and JSON; whoever is asked may ask back before it answers (a test that hands over a function of its own).
Values of other kinds than `encode` knows stay where they are, and travel as a number that stands for them.
"""

from __future__ import annotations

import builtins
import json
import os
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any

LONGEST = 1_000_000
"""Elements that are taken of an iterator, which may have no end."""

HUGE = 1 << 1000
"""From here on integers travel in hexadecimal: Python refuses decimals of many thousand digits."""

SEQUENCES: Mapping[str, Callable[[Iterable[Any]], Any]] = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
}
Reference = Callable[[Any], Any]
PLAIN: frozenset[str] = frozenset[str]().union(
    *(dir(kind) for kind in (str, int, float, complex, bytes, bytearray, dict, *SEQUENCES.values()))
)
"""Attributes of plain values: a test that uses one may expect a plain value."""


class NoPlainValue(Exception):
    """A message that holds something else than `encode` makes."""


class NoAnswer(TypeError):
    """A test asks an object of the program's to decide it. A TypeError, so that list() can do without a length."""


class Ended(BaseException):
    """The other process is gone; no test may go on as if it had only raised."""


def encode(value: Any, other: Reference) -> Any:
    """JSON of a plain value; `other(value)` for anything else."""
    if value is None or isinstance(value, (bool, str, float)):
        return value
    if isinstance(value, int):
        return {"int": hex(value)} if abs(value) > HUGE else value
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": value.hex()}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, dict):
        return {"dict": [[encode(key, other), encode(one, other)] for key, one in value.items()]}
    for name, kind in SEQUENCES.items():
        if isinstance(value, kind):  # type: ignore[arg-type]
            return {name: [encode(one, other) for one in value]}
    return other(value)


def decode(value: Any, other: Reference) -> Any:
    """The other way round. Raises NoPlainValue or what the constructors raise: a message may come from a hostile program."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if not isinstance(value, dict) or len(value) != 1:
        raise NoPlainValue
    ((name, content),) = value.items()
    if name in SEQUENCES:
        return SEQUENCES[name](decode(one, other) for one in content)
    if name == "dict":
        return {decode(key, other): decode(one, other) for key, one in content}
    if name == "int":
        return int(content, 16)
    if name == "bytes":
        return bytes.fromhex(content)
    if name == "complex":
        return complex(*content)
    return other(value)


def change(own: Any, new: Any) -> None:
    """A list, dictionary or set becomes what the called function has made of its copy."""
    if isinstance(own, list) and isinstance(new, list):
        own[:] = new
    elif isinstance(own, (dict, set)) and isinstance(new, type(own)):
        own.clear()
        own.update(new)


class Peer:
    """One end of the conversation. `namespace`: what the other may name; None in the tests' process, of which it may only
    call what it was handed."""

    def __init__(self, receiving: int, sending: int, namespace: dict[str, Any] | None) -> None:
        self._receiving, self._sending, self.namespace = receiving, sending, namespace
        self._given: list[Any] = []
        self.defined: frozenset[str] = frozenset()
        """In the tests' process: the program's names."""
        self.classes: frozenset[str] = frozenset()
        """Those of them that the tests are about: objects of these may answer for themselves."""

    def receive(self) -> Any:
        size = int.from_bytes(self._read(4), "big")
        return json.loads(self._read(size))

    def send(self, message: Any) -> None:
        data = json.dumps(message).encode()
        view = memoryview(len(data).to_bytes(4, "big") + data)
        while view:
            view = view[os.write(self._sending, view) :]

    def ask(self, operation: str, on: Any, *values: Any, **named: Any) -> Any:
        """What the other process's object `on` gives. Raises what it raised there, as far as Python knows the name."""
        arguments = [self.encode(value) for value in values]
        self.send(
            {"op": operation, "on": on, "args": arguments, "named": {k: self.encode(v) for k, v in named.items()}}
        )
        while True:
            answer = self.receive()
            if "value" in answer:
                for own, changed in zip(values, answer.get("args", ()), strict=False):
                    change(own, self.decode(changed))
                return self.decode(answer["value"])
            if "raised" in answer:
                kind = getattr(builtins, str(answer["raised"]), None)
                # StopIteration would end the test's own loops, as if all had been seen.
                known = isinstance(kind, type) and issubclass(kind, Exception) and "Iteration" not in answer["raised"]
                raise (kind if known else RuntimeError)(answer.get("message", ""))  # type: ignore[misc]
            if "ended" in answer:
                raise Ended
            self.send(self.serve(answer))

    def serve(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to what the other asks."""
        try:
            target = self._target(message["on"])
            arguments = [self.decode(one) for one in message["args"]]
            named = {name: self.decode(one) for name, one in message["named"].items()}
            if message["op"] == "call":
                answer = {"value": self.encode(target(*arguments, **named))}
                after = [self.encode(one) for one in arguments]
                return answer if after == message["args"] else {**answer, "args": after}
            if self.namespace is None:
                raise PermissionError("a test's own function can be called and nothing else")
            return {"value": self.encode(OPERATIONS[message["op"]](target, *arguments))}
        except Ended:
            raise
        except BaseException as error:
            return {"raised": type(error).__name__, "message": str(error)[:1000]}

    def encode(self, value: Any) -> Any:
        return encode(value, self._give)

    def decode(self, value: Any) -> Any:
        return decode(value, self._take)

    def _give(self, value: Any) -> Any:
        if isinstance(value, Proxy):
            return {"yours": _own(value, "_reference")}
        number = next((number for number, one in enumerate(self._given) if one is value), len(self._given))
        if number == len(self._given):
            self._given.append(value)
        return {"mine": [number, *self._classes_of(value)]}

    def _classes_of(self, value: Any) -> list[str]:
        named = (self.namespace or {}).items()
        return [name for name, one in named for kind in type(value).__mro__ if one is kind]

    def _take(self, value: Mapping[str, Any]) -> Any:
        if "yours" in value:
            return self._target(value["yours"])
        if "mine" in value and isinstance(value["mine"], list) and isinstance(value["mine"][0], int):
            number, *classes = value["mine"]
            return Proxy(self, number, may_answer=not self.classes.isdisjoint(classes))
        raise NoPlainValue

    def _target(self, on: Any) -> Any:
        if isinstance(on, int):
            return self._given[on]
        if self.namespace is None:
            raise PermissionError("the names of the tests are not the program's")
        if on not in self.namespace and HOLDER in self.namespace:
            return getattr(self.namespace[HOLDER](), on)
        if on not in self.namespace:
            raise NameError(f"the program defines no {on}")
        return self.namespace[on]

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = os.read(self._receiving, size - len(data))
            if not part:
                os._exit(0)  # the trainer has hung up
            data += part
        return data


class Proxy:
    """Something that lives in the other process. It equals nothing but itself: an object of the program must not decide
    whether it is the right answer. What a function gave has neither truth, length, text nor index, and no methods that plain
    values have: a test that asks for these expects a plain value, and would hand over what it compares with."""

    __slots__ = ("_may_answer", "_peer", "_reference", "_refused")

    def __init__(self, peer: Peer, reference: int | str, may_answer: bool = True, refused: bool = False) -> None:
        for name, value in zip(self.__slots__, (may_answer, peer, reference, refused), strict=True):
            object.__setattr__(self, name, value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Proxy) and _own(other, "_reference") == _own(self, "_reference")

    def __hash__(self) -> int:
        return hash(_own(self, "_reference"))

    def __call__(self, *values: Any, **named: Any) -> Any:
        if _own(self, "_refused"):
            raise NoAnswer
        found = _ask(self, "call", *values, **named)
        if isinstance(found, Proxy) and _own(self, "_reference") == HOLDER:
            object.__setattr__(found, "_may_answer", True)
        return found

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        found = _ask(self, "getattr", name)
        if isinstance(found, Proxy) and name in PLAIN and not _own(self, "_may_answer"):
            object.__setattr__(found, "_refused", True)
        return found

    def __setattr__(self, name: str, value: Any) -> None:
        _ask(self, "setattr", name, value)

    def __getitem__(self, key: Any) -> Any:
        return _answer(self, "getitem", key)

    def __setitem__(self, key: Any, value: Any) -> None:
        _answer(self, "setitem", key, value)

    def __iter__(self) -> Any:
        return iter(_ask(self, "iter"))

    def __len__(self) -> int:
        return int(_answer(self, "len"))

    def __bool__(self) -> bool:
        if _own(self, "_peer").namespace is not None:
            return True  # in the program's process: a function that a test handed over, as in `if key: …`
        return bool(_answer(self, "bool"))

    def __str__(self) -> str:
        return str(_answer(self, "str"))


HOLDER = "Solution"
"""LeetCode's class that only holds the function under test: its object has methods, but is no answer when they return it."""

OPERATIONS: Mapping[str, Callable[..., Any]] = {
    "getattr": getattr,
    "setattr": setattr,
    "getitem": lambda target, key: target[key],
    "setitem": lambda target, key, value: target.__setitem__(key, value),
    "iter": lambda target: list(islice(target, LONGEST)),
    "len": len,
    "bool": bool,
    "str": str,
}


def _own(proxy: Proxy, name: str) -> Any:
    return object.__getattribute__(proxy, name)


def _answer(proxy: Proxy, operation: str, *values: Any) -> Any:
    if not _own(proxy, "_may_answer"):
        raise NoAnswer
    return _ask(proxy, operation, *values)


def _ask(proxy: Proxy, operation: str, *values: Any, **named: Any) -> Any:
    return _own(proxy, "_peer").ask(operation, _own(proxy, "_reference"), *values, **named)
