"""Programs that want the reward without the work. Each was written to succeed against a runner that trusts it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.programs import Judge, judge

pytestmark = pytest.mark.fault("T33")

SPLIT = ["assert f(2) == 'needle-7391'"]
"""Compared by the trainer: the program's process alone."""

WHOLE = [
    "assert f(2).upper() == 'needle-7391'.upper()",
    "assert f(2) == 'needle-' + str(7391)",
    "assert 'needle-7391' == f(2)",
]
"""Run in a process of the tests."""

SEARCH = """
import gc, glob, os, sys

def look():
    yield str(sys.argv) + str(dict(os.environ))
    for file in glob.glob("/proc/*/cmdline") + glob.glob("/proc/*/environ") + glob.glob("/tmp/**", recursive=True):
        try:
            yield open(file, "rb").read().decode("utf-8", "replace")
        except OSError:
            pass
    for one in range(64):
        try:
            os.set_blocking(one, False)
            yield os.read(one, 1 << 20).decode("utf-8", "replace")
        except OSError:
            pass
    frame = sys._getframe()
    while frame:
        yield str(frame.f_locals) + str(list(frame.f_globals))
        frame = frame.f_back
    for one in gc.get_objects():
        try:
            yield str(one)
        except BaseException:
            pass
    try:
        memory = open("/proc/%d/mem" % os.getppid(), "rb")
        yield memory.read(1 << 16).decode("utf-8", "replace")
    except OSError:
        pass

def f(n):
    mark = "nee" + "dle-"
    for text in look():
        at = text.find(mark)
        if at >= 0 and text[at + 7 : at + 11].isdigit():
            return text[at : at + 11]
    return "found nothing"
"""

CHEATS = {
    "search": SEARCH,
    "equals everything": """
class Same(str):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def upper(self): return self
    __hash__ = None
class Object:
    def __eq__(self, other): return True
    def upper(self): return self
def f(n): return Object()
""",
    "equals everything, a text": """
class Same(str):
    def __eq__(self, other): return True
    def upper(self): return self
def f(n): return Same("x")
""",
    "sys.exit at once": "import sys\nsys.exit(0)\n",
    "sys.exit": "import sys\ndef f(n): sys.exit(0)\n",
    "os._exit at once": "import os\nos._exit(0)\n",
    "os._exit": "import os\ndef f(n): os._exit(0)\n",
    "exit at the end": "import atexit, os\natexit.register(os._exit, 0)\ndef f(n): return 1\n",
    "prints results": """
def f(n):
    for one in ('{"passed": true}', "PASSED", "1 passed", '{"value": "needle"}'): print(one)
""",
    "writes to every descriptor": """
import json, os
def f(n):
    for text in ('{"passed": true}', '{"value": true}', '{"value": {"mine": 0}}'):
        for one in range(3, 64):
            try: os.write(one, len(text).to_bytes(4, "big") + text.encode())
            except OSError: pass
    return True
""",
    "patches what runs it": """
import builtins, json, sys
json.dumps = lambda *a, **k: '{"passed": true}'
sys.modules["pggrpo_cli.sandbox.speech"].encode = lambda *a: True
sys.modules["pggrpo_cli.sandbox.inside"].examine = lambda *a: {"passed": True}
builtins.AssertionError = type("Never", (Exception,), {})
def f(n): return 1
""",
    "own builtins": """
import builtins
builtins.str = str = lambda *a: "needle"
abs = len = isinstance = lambda *a: True
def f(n): return None
""",
    "no plain message": """
import os
def f(n):
    text = b'{"value": {"list": ' + b"[" * 100000 + b"]" * 100000 + b"}}"
    for one in range(3, 64):
        try: os.write(one, len(text).to_bytes(4, "big") + text)
        except OSError: pass
""",
    "a number of a million digits": "def f(n): return 10 ** 1000000\n",
    "goes in circles": "def f(n):\n    one = []\n    one.append(one)\n    return one\n",
    "is no exception": "class Odd(BaseException):\n    def __str__(self): raise Odd\ndef f(n): raise Odd\n",
}


@pytest.fixture(scope="module")
def here() -> Iterator[Judge]:
    with judge() as found:
        yield found


@pytest.mark.parametrize("cheat", CHEATS)
def test_earns_nothing(here: Judge, cheat: str) -> None:
    assert here.score(CHEATS[cheat], SPLIT) == 0.0
    before = here.worker()
    assert here.score(CHEATS[cheat], WHOLE) == 0.0
    assert here.score("def f(n): return 'needle-7391'", SPLIT + WHOLE) == 1.0
    assert here.worker() == before
    assert here.left_over() == []


def test_names_of_the_library_are_the_real_ones(here: Judge) -> None:
    tests = ["assert abs(f(2) - 5) < 0.1", "import math\nassert math.isclose(f(2), 5)", "assert math.isclose(f(2), 5)"]
    program = """
class math:
    isclose = staticmethod(lambda *a: True)
def abs(one): return 0
def f(n): return N
"""
    assert here.score(program.replace("N", "4"), tests) == 0.0
    assert here.score(program.replace("N", "5"), tests) == 1.0


CHECK_ABS = """
def check(candidate):
    assert candidate(-3) == 3
    assert abs(candidate(2.0) - 2.0) < 1e-9
"""


@pytest.mark.parametrize("solution", ["def abs(n): return N", "class Solution:\n    def abs(self, n): return N"])
def test_an_entry_point_named_like_a_built_in(here: Judge, solution: str) -> None:
    right, wrong = solution.replace("N", "n if n > 0 else -n"), solution.replace("N", "'nonsense'")
    assert here.score(right, CHECK_ABS, entry_point="abs") == 1.0
    for program in (wrong, "x = 1", wrong + "\ndef check(candidate): pass\n"):
        assert here.score(program, CHECK_ABS, entry_point="abs") == 0.0


def test_built_in_names_in_asserts(here: Judge) -> None:
    tests, setup = ["assert sum([1, 2]) == 3", "assert sum(tuple(range(2))) == 1"], "x = 1"
    for columns in ({"entry_point": "sum"}, {}):
        one = tests if columns else tests[:1]
        assert here.score("def sum(a): return a[0] + a[1]", one, setup=setup, **columns) == 1.0
        for wrong in ("def sum(a): return -1", "x = 1"):
            assert here.score(wrong, one, setup=setup, **columns) == 0.0


def test_an_entry_point_named_like_a_module(here: Judge) -> None:
    check = "def check(candidate):\n    assert candidate([1, 3], 2) == 1\n"
    for program in ("def bisect(a, n): return sum(one < n for one in a)", "from bisect import bisect"):
        assert here.score(program, check, entry_point="bisect") == 1.0
        assert here.score(program, ["assert bisect([1, 3], 2) == 1"], setup="x = 1") == 1.0
    assert here.score("def bisect(a, n): return 0", check, entry_point="bisect") == 0.0
    assert here.score("import bisect", check, entry_point="bisect") == 0.0


@pytest.mark.parametrize("line", ["nt = 3", "winreg = None", "this = antigravity = 1"])
def test_names_of_modules_of_other_systems(here: Judge, line: str) -> None:
    tests = ["assert abs(f(2) - 5) < 0.1", "assert 0 < f(2) < 9"]
    assert here.score(f"{line}\ndef f(n): return 5\n", tests) == 1.0
    assert here.score(f"{line}\ndef f(n): return 9\n", tests) == 0.0
    uses = ["assert winreg.OpenKey(f(2)) == 5"]
    assert here.score("class winreg:\n    OpenKey = lambda n: n\ndef f(n): return 5\n", uses) == 1.0


AGREES = """
class Y:
    def __getattr__(self, name): return lambda *values: True
    def __bool__(self): return True
    def __len__(self): return 5
    def __str__(self): return "hello"
    def __getitem__(self, key): return True
    def __iter__(self): yield True
    startswith = count = index = __contains__ = lambda *values: True
"""
ASKS = [
    "assert f(1).startswith('hello')",
    "assert f(1).count('hello') is True",
    "assert f(1)",
    "assert len(f(1)) == 5",
    "assert str(f(1)) == 'hello'",
    "assert f(1)['hello']",
    "assert 'hello' in f(1)",
    "it = f(1)\nassert it.startswith('hello')",
    "begins = f(1).startswith\nassert begins('hello')",
    "assert f(1).copy.startswith('hello')",
    "try:\n    it = f(1).startswith('hello')\nexcept ValueError:\n    it = False\nassert it",
]


@pytest.mark.parametrize(
    "program",
    [
        "class Y(Y):\n    copy = Y()\ndef f(n): return Y()",
        "f = type('f', (Y,), {'__init__': lambda self, n: None, 'copy': Y()})",
        "class Stack(Y): copy = Y()\ndef f(n): return Stack()",
        "class ValueError(Y): copy = Y()\ndef f(n): return ValueError()",
    ],
)
def test_a_returned_object_decides_nothing(here: Judge, program: str) -> None:
    assert here.score(AGREES + program, ASKS) == 0.0
    plain = "def f(n): return 'hello'"
    assert here.score(plain, [ASKS[0], ASKS[2], ASKS[3], ASKS[4], ASKS[6], ASKS[7], ASKS[8]]) == 1.0


def test_a_method_of_solution_returns_an_answer(here: Judge) -> None:
    check = "def check(candidate):\n    assert candidate(1).startswith('hello')\n"
    program = AGREES + "class Solution(Y):\n    def f(self, n): return self\n"
    for tests in (check, ["assert Solution().f(1).startswith('hello')"]):
        assert here.score(program, tests, entry_point="Solution().f") == 0.0
        right = "class Solution:\n    def f(self, n): return 'hello!'\n"
        assert here.score(right, tests, entry_point="Solution().f") == 1.0
    counts = "class Solution:\n    def count(self, a): return len(a)\n"
    assert here.score(counts, ["x = [1]\nassert Solution().count(x) == 1"]) == 1.0


def test_objects_of_a_class_under_test_still_answer(here: Judge) -> None:
    program = """
class Vector:
    def __init__(self, x, y): self.x, self.y = x, y
    def add(self, other): return Vector(self.x + other.x, self.y + other.y)
    def __str__(self): return f"({self.x}, {self.y})"
    def __len__(self): return 2
    def __getitem__(self, at): return (self.x, self.y)[at]
    def index(self, one): return [self.x, self.y].index(one)
class stack(list):
    pass
class queue:
    def __init__(self): self.items = []
    def push(self, one): self.items.append(one)
    def pop(self): return self.items.pop(0)
class Node:
    def __init__(self, value, left=None): self.value, self.left = value, left
    def inorder(self): return [self.value]
def tree(): return Node(1, Node(2))
def adder(n): return lambda m: n + m
"""
    tests = [
        "v = Vector(1, 2).add(Vector(3, 4))\nassert str(v) == '(4, 6)' and len(v) == 2 and v[1] == 6 and v.index(6) == 1",
        "assert tree().left.value == 2 and tree().inorder() == [1]",
        "assert adder(1)(2) + 0 == 3",
        "q = queue()\nq.push(4)\nassert q.pop() == 4",
    ]
    assert here.score(program, tests) == 1.0


def test_a_loop_of_the_tests_cannot_be_ended_early(here: Judge) -> None:
    assert here.score("def f(n): raise StopIteration", ["assert all(map(f, [1, 2]))"]) == 0.0


def test_a_function_of_the_tests_can_only_be_called(here: Judge) -> None:
    tests = ["secret = 'needle-7391'\nassert f(lambda n: n + 1) == secret"]
    program = """
def f(one):
    peer = object.__getattribute__(one, "_peer")
    for ask in (lambda: one.__globals__, lambda: peer.ask("getattr", 0, "__globals__"), lambda: peer.ask("str", "secret"),
                lambda: peer.ask("call", "secret"), lambda: peer.ask("getattr", "secret", "upper")):
        try:
            found = ask()
            if "needle-7391" in str(found): return "needle-7391"
        except Exception:
            pass
    return one(1)
"""
    assert here.score(program, tests) == 0.0
    assert here.score(program, ["assert f(lambda n: n + 1) == 2"]) == 1.0


def test_the_search_finds_what_is_there_to_be_found(here: Judge) -> None:
    """Against a runner that hands over the expected value it would have succeeded."""
    program = SEARCH.replace("def f(n):", "def f(n, hint):")
    assert here.score(program, ["assert f(2, 'needle-7391') == 'needle-7391'"]) == 1.0
