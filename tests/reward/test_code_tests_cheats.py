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
