"""The type of a configuration field, as its class writes it, and whether a value fits."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pggrpo_cli.ranges import Range

NAMES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "list": "a list",
    "dict": "a mapping",
}
SIGNS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
NO_LIMITS = Range()
LISTS = ("list", "List", "Sequence", "tuple", "Tuple")
MAPPINGS = ("dict", "Dict", "Mapping")


@dataclass(frozen=True, kw_only=True, slots=True)
class FieldType:
    """One of `kinds` (keys of NAMES), or one of `choices`, or null if `optional`; or `anything`."""

    anything: bool = False
    kinds: tuple[str, ...] = ()
    choices: tuple[Any, ...] = ()
    optional: bool = False
    limits: Range = NO_LIMITS
    element: FieldType | None = None

    def allowed(self) -> str:
        """ "a number > 0", "grpo | dpo", "a whole number ≥ 1 or null"."""
        parts = [" | ".join(str(choice) for choice in self.choices)] if self.choices else []
        limits = " and ".join(f"{SIGNS[name]} {bound:.10g}" for name, bound in self._bounds())
        kinds = [kind for kind in self.kinds if not (kind == "int" and "float" in self.kinds)]
        parts += [f"{NAMES[kind]} {limits}".strip() if kind in ("int", "float") else NAMES[kind] for kind in kinds]
        if self.element is not None and "list" in self.kinds and (self.element.kinds or self.element.choices):
            parts = [f"a list, each entry {self.element.allowed()}" if part == "a list" else part for part in parts]
        return " or ".join(parts + (["null"] if self.optional else []))

    def problem(self, value: Any) -> str | None:
        """What is wrong with `value`; None if nothing is."""
        if self.anything or value in self.choices or (value is None and self.optional):
            return None
        if value is None:
            return "null is not allowed here"
        if not self.kinds:
            return f"{show(value)} is none of the choices"
        if not any(_is_a(value, kind) for kind in self.kinds):
            return f"{show(value)} is not {' or '.join(NAMES[kind] for kind in self.kinds)}"
        if isinstance(value, float) and not math.isfinite(value):
            return f"{show(value)} is not a finite number"
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            for name, bound in self._bounds():
                fits = {"gt": value > bound, "ge": value >= bound, "lt": value < bound, "le": value <= bound}[name]
                if not fits:
                    return f"{show(value)} is not {SIGNS[name]} {bound:.10g}"
        if isinstance(value, list) and self.element is not None:
            return next((found for found in map(self.element.problem, value) if found), None)
        return None

    def in_quotes(self, key: str, value: Any) -> str:
        """What to do where text is wanted and YAML reads something else: nan, 1e3, yes."""
        if "str" not in self.kinds or not isinstance(value, (bool, int, float)):
            return ""
        return f" As text it needs quotes, for the shell too: '{key}=\"{show(value)}\"'."

    def _bounds(self) -> list[tuple[str, float]]:
        bounds = [(name, getattr(self.limits, name)) for name in SIGNS]
        return [(name, bound) for name, bound in bounds if bound is not None]


ANYTHING = FieldType(anything=True)


def show(value: Any) -> str:
    """A value as the user wrote it."""
    if isinstance(value, bool):
        return str(value).lower()
    text = "null" if value is None else repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _is_a(value: Any, kind: str) -> bool:
    if kind == "dict":
        return isinstance(value, Mapping)
    if kind == "list":
        return isinstance(value, (list, tuple))
    if kind == "float":
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind == "int":
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, bool if kind == "bool" else str)


def parse_annotation(node: ast.expr | None, aliases: Mapping[str, ast.expr]) -> FieldType:
    """The type that an annotation writes; what is not understood allows anything. `aliases`: names of the module."""
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            return parse_annotation(ast.parse(node.value, mode="eval").body, aliases)
        return FieldType(optional=node.value is None, kinds=() if node.value is None else ("str",))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _either(parse_annotation(node.left, aliases), parse_annotation(node.right, aliases))
    if isinstance(node, ast.Subscript):
        return _parse_subscript(node, aliases)
    name = _last_name(node)
    if name in ("int", "float", "bool", "str"):
        return FieldType(kinds=(name,))
    if name in LISTS:
        return FieldType(kinds=("list",))
    if name in MAPPINGS:
        return FieldType(kinds=("dict",))
    if isinstance(node, ast.Name) and node.id in aliases:
        return parse_annotation(aliases[node.id], {key: value for key, value in aliases.items() if key != node.id})
    return ANYTHING


def _parse_subscript(node: ast.Subscript, aliases: Mapping[str, ast.expr]) -> FieldType:
    name = _last_name(node.value)
    inner = list(node.slice.elts) if isinstance(node.slice, ast.Tuple) else [node.slice]
    if name == "Literal":
        values = tuple(ast.literal_eval(one) for one in inner)
        return FieldType(choices=tuple(one for one in values if one is not None), optional=None in values)
    if name == "Annotated":
        parsed = parse_annotation(inner[0], aliases)
        ranges = [one for one in inner[1:] if isinstance(one, ast.Call) and _last_name(one.func) == "Range"]
        for call in ranges:
            bounds = {str(one.arg): ast.literal_eval(one.value) for one in call.keywords}
            parsed = replace(parsed, limits=Range(**bounds))
        return parsed
    if name == "Optional":
        return replace(parse_annotation(inner[0], aliases), optional=True)
    if name == "Union":
        parsed = parse_annotation(inner[0], aliases)
        for one in inner[1:]:
            parsed = _either(parsed, parse_annotation(one, aliases))
        return parsed
    if name in LISTS:
        return FieldType(kinds=("list",), element=parse_annotation(inner[0], aliases))
    return FieldType(kinds=("dict",)) if name in MAPPINGS else ANYTHING


def _either(left: FieldType, right: FieldType) -> FieldType:
    if left.anything or right.anything:
        return ANYTHING
    return FieldType(
        kinds=left.kinds + right.kinds,
        choices=left.choices + right.choices,
        optional=left.optional or right.optional,
        limits=left.limits if left.limits != NO_LIMITS else right.limits,
        element=left.element or right.element,
    )


def _last_name(node: ast.expr | None) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
