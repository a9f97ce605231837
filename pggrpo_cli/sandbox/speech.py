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


class NoPlainValue(Exception):
    """A message that holds something else than `encode` makes."""


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
            return {"yours": object.__getattribute__(value, "_reference")}
        for number, one in enumerate(self._given):
            if one is value:
                return {"mine": number}
        self._given.append(value)
        return {"mine": len(self._given) - 1}

    def _take(self, value: Mapping[str, Any]) -> Any:
        if "yours" in value:
            return self._target(value["yours"])
        if "mine" in value and isinstance(value["mine"], (int, str)):
            return Proxy(self, value["mine"])
        raise NoPlainValue

    def _target(self, on: Any) -> Any:
        if isinstance(on, int):
            return self._given[on]
        if self.namespace is None:
            raise PermissionError("the names of the tests are not the program's")
        if on not in self.namespace and "Solution" in self.namespace:
            return getattr(self.namespace["Solution"](), on)
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
    whether it is the right answer."""

    __slots__ = ("_peer", "_reference")

    def __init__(self, peer: Peer, reference: int | str) -> None:
        object.__setattr__(self, "_peer", peer)
        object.__setattr__(self, "_reference", reference)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Proxy) and _reference(other) == _reference(self)

    def __hash__(self) -> int:
        return hash(_reference(self))

    def __call__(self, *values: Any, **named: Any) -> Any:
        return _ask(self, "call", *values, **named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _ask(self, "getattr", name)

    def __setattr__(self, name: str, value: Any) -> None:
        _ask(self, "setattr", name, value)

    def __getitem__(self, key: Any) -> Any:
        return _ask(self, "getitem", key)

    def __setitem__(self, key: Any, value: Any) -> None:
        _ask(self, "setitem", key, value)

    def __iter__(self) -> Any:
        return iter(_ask(self, "iter"))

    def __len__(self) -> int:
        return int(_ask(self, "len"))

    def __bool__(self) -> bool:
        return bool(_ask(self, "bool"))

    def __str__(self) -> str:
        return str(_ask(self, "str"))


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


def _reference(proxy: Proxy) -> Any:
    return object.__getattribute__(proxy, "_reference")


def _ask(proxy: Proxy, operation: str, *values: Any, **named: Any) -> Any:
    return object.__getattribute__(proxy, "_peer").ask(operation, _reference(proxy), *values, **named)
