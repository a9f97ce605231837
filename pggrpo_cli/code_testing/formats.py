"""What data sets write into their column of tests, as tests of three kinds. Nothing of it is run here."""

from __future__ import annotations

import ast
import json
import symtable
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pggrpo_cli.errors import DataError


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """function(*arguments, **named) is to equal one of `expected`."""

    function: str
    arguments: Sequence[Any]
    named: Mapping[str, Any] = field(default_factory=dict)
    expected: Sequence[Any]
    from_json: bool = False
    """JSON has no tuples: they count as lists."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Script:
    """The program as a script: what it prints for this input."""

    stdin: str
    stdout: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Statements:
    """Python that is to run without an exception."""

    source: str
    entry_point: str | None = None
    """The function under test, or an expression for it such as Solution().add."""
    calls_check: bool = False
    """`check` is called with what `entry_point` is in the program: in the source itself that name means what it always does."""


Test = Call | Script | Statements

ALLOWED = (
    'allowed are assert statements (a list, or one text), {"inputs": [...], "outputs": [...]} with or without '
    '"fn_name", and a list of {"input", "output"}; also as JSON text'
)


def read_tests(value: Any, where: str, setup: str = "", entry_point: str | None = None) -> list[Test]:
    """Empty for a row without tests. `where` names row and column for the DataError.

    `setup`: code that the statements need; `entry_point`: what HumanEval's `check(candidate)` is called with.
    """
    if isinstance(value, str):
        return _of_text(value, where, setup, entry_point)
    if isinstance(value, Mapping):
        return _of_pairs(value, where) if value else []
    if isinstance(value, Sequence):
        if all(isinstance(one, str) for one in value):
            return [_of_statement(one, where, setup, entry_point) for one in value if one.strip()]
        if all(isinstance(one, Mapping) for one in value):
            return [_script(one, where) for one in value]
    if value is None:
        return []
    raise DataError(f"{where}: a {type(value).__name__} is no set of tests; {ALLOWED}.")


def _of_text(text: str, where: str, setup: str, entry_point: str | None) -> list[Test]:
    if not text.strip():
        return []
    if text.lstrip()[0] in "[{":
        try:
            value = json.loads(text)
        except ValueError as error:
            raise DataError(f"{where}: begins like JSON and is none ({error}); {ALLOWED}.") from error
        return read_tests(value, where, setup, entry_point)
    return [_of_statement(text, where, setup, entry_point)]


def _of_statement(source: str, where: str, setup: str, entry_point: str | None) -> Test:
    """A Call where the statement is only `assert f(values) == value`: that needs no second process."""
    entry_point = entry_point.strip() or None if entry_point else None
    body = _parsed(source, where)
    _parsed(setup, where)
    if len(body) == 1 and isinstance(body[0], ast.Assert) and not setup.strip():
        match body[0].test:
            case ast.Compare(left=ast.Call(func=ast.Name(id=name)) as call, ops=[ast.Eq()], comparators=[right]):
                try:
                    return Call(
                        function=name,
                        arguments=[ast.literal_eval(one) for one in call.args],
                        named={_name(one): ast.literal_eval(one.value) for one in call.keywords},
                        expected=[ast.literal_eval(right)],
                    )
                except (ValueError, TypeError):  # no literals: names, calls, **named
                    pass
    calls_check = entry_point is not None and any(
        isinstance(one, ast.FunctionDef) and one.name == "check" for one in body
    )
    if calls_check:
        _parsed(str(entry_point), where)
    return Statements(source=source, entry_point=entry_point, calls_check=calls_check)


def _parsed(source: str, where: str) -> list[ast.stmt]:
    try:
        symtable.symtable(source, "<test>", "exec")  # names.py needs one; it refuses more than ast.parse
        return ast.parse(source).body
    except (SyntaxError, ValueError) as error:
        raise DataError(f"{where}: {source[:80]!r} is no Python: {error}; {ALLOWED}.") from error


def _name(keyword: ast.keyword) -> str:
    if keyword.arg is None:
        raise ValueError("**named")
    return keyword.arg


def _script(pair: Mapping[str, Any], where: str) -> Script:
    if not {"input", "output"} <= set(pair) or pair.get("testtype", "stdin") != "stdin":
        raise DataError(f"{where}: {dict(pair)!r:.80} is no pair of stdin and stdout; {ALLOWED}.")
    return Script(stdin=_text(pair["input"]), stdout=_text(pair["output"]))


def _of_pairs(value: Mapping[str, Any], where: str) -> list[Test]:
    inputs, outputs = (value.get(f"{name}s", value.get(name)) for name in ("input", "output"))
    if not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs):
        raise DataError(
            f"{where}: needs as many inputs as outputs, both lists; it has the keys {', '.join(value)}; {ALLOWED}."
        )
    if not (name := value.get("fn_name")):
        return [Script(stdin=_text(one), stdout=_text(out)) for one, out in zip(inputs, outputs, strict=True)]
    # APPS wraps each result in a list; where all of a row are, the result itself is right too.
    wrapped = all(isinstance(one, list) and len(one) == 1 for one in outputs)
    return [
        Call(
            function=name,
            arguments=_arguments(one, where),
            expected=[out, out[0]] if wrapped else [out, *_json(out)],
            from_json=True,
        )
        for one, out in zip(inputs, outputs, strict=True)
    ]


def _arguments(value: Any, where: str) -> list[Any]:
    """A list of arguments, or LiveCodeBench's text with one JSON value a line."""
    if isinstance(value, list):
        return value
    try:
        return [json.loads(line) for line in str(value).splitlines() if line.strip()]
    except ValueError as error:
        raise DataError(
            f"{where}: the arguments {value!r:.80} are neither a list nor lines of JSON: {error}."
        ) from error


def _json(value: Any) -> list[Any]:
    """What LiveCodeBench's text of a result stands for; nothing for what is no text, or no JSON."""
    try:
        return [json.loads(value)] if isinstance(value, str) else []
    except ValueError:
        return []


def _text(value: Any) -> str:
    """APPS writes a text or a list of its lines."""
    return "\n".join(str(line) for line in value) if isinstance(value, list) else str(value)
