"""Which names in a row's statements are the program's. Read from the text of the tests alone: the program has no say."""

from __future__ import annotations

import ast
import builtins
import re
import symtable
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pggrpo_cli.code_testing.formats import Call, Statements, Test
from pggrpo_cli.sandbox.speech import HOLDER, PLAIN


@dataclass(frozen=True, kw_only=True, slots=True)
class Names:
    """Of all tests of a row, which share a namespace."""

    under_test: frozenset[str]
    """The program's, although Python may have them too."""
    modules: frozenset[str]
    """Of the standard library, used as modules: the real ones."""
    classes: frozenset[str]
    """Classes that the tests are about, by their capital, or because the tests ask their objects for what no plain value has:
    such objects may answer for themselves."""


def names_of(tests: Sequence[Test], setup: str) -> Names:
    """A built-in name is a helper of the tests, unless the entry point says that it is under test, or it is the only name
    that they call and they use none that Python lacks."""
    statements = [test for test in tests if isinstance(test, Statements)]
    sources = [setup, *(test.source for test in statements)]
    free = _free(sources)
    trees = [list(ast.walk(ast.parse(source))) for source in sources]
    nodes = [node for tree in trees for node in tree]
    modules = frozenset(_with_attributes(nodes) & free & sys.stdlib_module_names)
    objects = {name for tree in trees for name in _made_objects(tree)} & free
    classes = objects | {name for name in free if name.lstrip("_")[:1].isupper()}
    classes -= {HOLDER, *dir(builtins)}
    entries = {root(test.entry_point) for test in statements if test.entry_point and not test.calls_check}
    if not entries and not any(test.entry_point for test in statements):
        functions = {test.function for test in tests if isinstance(test, Call)}
        called = functions | ({node.func.id for node in nodes if _is_call(node)} & free)  # type: ignore[attr-defined]
        others = {name for name in free | functions if not hasattr(builtins, name)} - modules
        entries = called if len(called) == 1 and not others else set()
    return Names(under_test=frozenset(entries), modules=modules - entries, classes=frozenset(classes))


def root(entry_point: str) -> str:
    """LeetCode writes Solution().name."""
    return re.split(r"\W", entry_point.strip(), maxsplit=1)[0]


def _free(sources: Iterable[str]) -> set[str]:
    """Names that are used, and bound by none of the sources."""
    used: set[str] = set()
    bound: set[str] = set()
    for source in sources:
        top = symtable.symtable(source, "<test>", "exec")
        bound |= {one.get_name() for one in top.get_symbols() if one.is_assigned() or one.is_imported()}
        used |= {one.get_name() for one in top.get_symbols() if one.is_referenced()}
        for scope in _below(top):
            used |= {one.get_name() for one in scope.get_symbols() if one.is_global() and one.is_referenced()}
    return used - bound


def _below(scope: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    for child in scope.get_children():
        yield child
        yield from _below(child)


def _with_attributes(nodes: Iterable[ast.AST]) -> set[str]:
    return {node.value.id for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)}


def _is_call(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name)


def _made_objects(nodes: Sequence[ast.AST]) -> set[str]:
    """Names whose result the tests ask for what no plain value has: N().push, or it = N() and it.push."""
    made = {
        target.id: node.value.func.id  # type: ignore[attr-defined]
        for node in nodes
        if isinstance(node, ast.Assign) and _is_call(node.value)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Attribute) and node.attr not in PLAIN:
            if _is_call(node.value):
                found.add(node.value.func.id)  # type: ignore[attr-defined]
            elif isinstance(node.value, ast.Name) and node.value.id in made:
                found.add(made[node.value.id])
    return found
