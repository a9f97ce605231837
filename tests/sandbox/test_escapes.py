"""Programs that try to get out of bubblewrap, really run. Each gets 1.0 if it succeeds, so 0.0 says that it did not; and
under `rlimits`, which isolates nothing, the same programs succeed: they would here too."""

from __future__ import annotations

import os
import signal
import socket
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.command_line import ROOT
from tests.programs import Judge, judge

pytestmark = pytest.mark.fault("T33")

GOOD = "def g():\n    return 1\n"
READ = "def f(path, size):\n    return open(path).read()[:size]\n"
CONNECT = """
import socket
def f(family, address):
    with socket.socket(family) as one:
        one.settimeout(2)
        one.connect(tuple(address) if isinstance(address, list) else address)
        return one.recv(20).decode()
"""
RESOLVE = """
import socket
def f(name):
    return len(socket.getaddrinfo(name, 80)) > 0
"""
ENVIRONMENTS = """
import glob, os
def f():
    found = str(dict(os.environ))
    for file in glob.glob("/proc/*/environ"):
        try:
            found += open(file, "rb").read().decode("utf-8", "replace")
        except OSError:
            pass
    return "canary-in-the-environment" in found
"""
WRITE = """
def f(path):
    with open(path, "w") as file:
        file.write("was here")
    return open(path).read()
"""
PROCESSES = """
import glob
def f(name):
    return any(name in open(file, "rb").read().decode("utf-8", "replace") for file in glob.glob("/proc/[0-9]*/cmdline"))
"""


@pytest.fixture(scope="module")
def secret() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUDGE_KEY", "canary-in-the-environment")
        yield


@pytest.fixture(scope="module")
def isolated(secret: None) -> Iterator[Judge]:
    with judge() as found:
        assert found.score(GOOD, ["assert g() == 1"]) == 1.0
        yield found


@pytest.fixture(scope="module")
def bare(secret: None) -> Iterator[Judge]:
    with judge(sandbox="rlimits") as found:
        yield found


def refused(isolated: Judge, program: str, tests: Any) -> None:
    """0.0, the worker lives, nothing is left, and the next program is scored as ever."""
    before = isolated.worker()
    assert isolated.score(program, tests) == 0.0
    assert isolated.left_over() == []
    assert isolated.score(GOOD, ["assert g() == 1"]) == 1.0
    assert isolated.worker() == before


def refused_here_alone(isolated: Judge, bare: Judge, program: str, *tests: str) -> None:
    """A score is a share: none of the tests is passed here, and all of them there."""
    refused(isolated, program, list(tests))
    assert bare.score(program, list(tests)) == 1.0


def _greeting(listener: socket.socket) -> None:
    with listener:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.sendall(b"reached")


def test_network(isolated: Judge, bare: Judge, tmp_path: Path) -> None:
    tcp = socket.create_server(("127.0.0.1", 0))
    hidden = socket.socket(socket.AF_UNIX)
    hidden.bind(f"\0pggrpo-{os.getpid()}")
    hidden.listen()
    for listener in (tcp, hidden):
        threading.Thread(target=_greeting, args=(listener,), daemon=True).start()
    port = tcp.getsockname()[1]
    refused_here_alone(isolated, bare, CONNECT, f"assert f({int(socket.AF_INET)}, ['127.0.0.1', {port}]) == 'reached'")
    address = f"\\0pggrpo-{os.getpid()}"
    refused_here_alone(isolated, bare, CONNECT, f"assert f({int(socket.AF_UNIX)}, '{address}') == 'reached'")
    tcp.close()
    hidden.close()


SOCKET = """
import socket
def f(family, kind):
    with socket.socket(family, kind):
        return "open"
"""
FAMILIES = ("AF_VSOCK", "AF_NETLINK", "AF_UNIX", "AF_INET", "AF_INET6")


def test_sockets_of_no_family_can_be_made(isolated: Judge, bare: Judge) -> None:
    """A namespace does not hold AF_VSOCK, which reaches the host of a virtual machine."""
    made = []
    for family in (getattr(socket, name) for name in FAMILIES):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            try:
                socket.socket(family, kind).close()
            except OSError:
                continue  # this kernel has none
            made.append((int(family), int(kind)))
    assert {family for family, _ in made} >= {socket.AF_UNIX, socket.AF_INET, socket.AF_NETLINK}
    tests = [f"assert f({family}, {kind}) == 'open'" for family, kind in made]
    refused(isolated, SOCKET, tests)
    assert bare.score(SOCKET, tests) == 1.0


def test_asyncio_works(isolated: Judge) -> None:
    """It speaks to itself by way of a pair of sockets."""
    program = """
import asyncio
async def later(n):
    await asyncio.sleep(0)
    return n
def f():
    return asyncio.run(later(3))
"""
    assert isolated.score(program, ["assert f() == 3"]) == 1.0


def test_names_of_hosts(isolated: Judge, bare: Judge) -> None:
    refused_here_alone(isolated, bare, RESOLVE, "assert f('localhost') == True")


def test_reading_outside(isolated: Judge, bare: Judge) -> None:
    with (
        tempfile.NamedTemporaryFile("w", dir=Path.home(), prefix=".pggrpo-test-") as at_home,
        tempfile.NamedTemporaryFile("w", dir=ROOT / "tests", prefix=".pggrpo-test-") as in_repository,
        tempfile.NamedTemporaryFile("w") as in_tmp,
    ):
        tests = []
        for file in (at_home, in_repository, in_tmp):
            file.write("canary")
            file.flush()
            tests.append(f"assert f({file.name!r}, 6) == 'canary'")
        for path in ("/etc/passwd", "/etc/hostname", "/etc/shadow", "/proc/self/environ"):
            if os.access(path, os.R_OK):
                text = Path(path).read_bytes().decode("utf-8", "replace")[:4] if path.startswith("/etc") else ""
                tests.append(f"assert f({path!r}, {len(text)}) == {text!r}")
        refused_here_alone(isolated, bare, READ, *tests)


def test_installed_packages_are_not_shown(isolated: Judge, bare: Judge) -> None:
    """Data sets with their answers may be among them."""
    program = "import glob\ndef f(pattern):\n    return len(glob.glob(pattern)) > 0\n"
    folders = {
        sysconfig.get_path("purelib"),
        sysconfig.get_path("stdlib") + "/site-packages",
        "/usr/lib/python3/dist-packages",
    }
    found = [folder for folder in folders if os.path.isdir(folder) and os.listdir(folder)]
    assert found
    refused_here_alone(isolated, bare, program, *(f"assert f({folder + '/*'!r}) == True" for folder in found))


def test_secrets_of_the_environment(isolated: Judge, bare: Judge) -> None:
    refused_here_alone(isolated, bare, ENVIRONMENTS, "assert f() == True")


def test_other_processes(isolated: Judge, bare: Judge) -> None:
    refused_here_alone(isolated, bare, PROCESSES, "assert f('pggrpo_cli') == True")


def test_writing_outside(isolated: Judge, bare: Judge, tmp_path: Path) -> None:
    reachable = [tmp_path / "written", ROOT / "tests" / ".pggrpo-test-written"]
    others = [Path(path) for path in ("/usr/written", "/written", "/dev/written", "/dev/shm/written")]
    tests = [f"assert f({str(path)!r}) == 'was here'" for path in [*reachable, *others]]
    refused(isolated, WRITE, tests)
    assert not any(path.exists() for path in [*reachable, *others])
    try:
        assert bare.score(WRITE, tests[: len(reachable)]) == 1.0
        assert all(path.exists() for path in reachable)
    finally:
        for path in reachable:
            path.unlink(missing_ok=True)
    assert isolated.score(WRITE, ["assert f('in_its_own_folder') == 'was here'"]) == 1.0


def test_what_root_owns(isolated: Judge) -> None:
    """Under root the program has, outside, root's user id and owns all of this; only the mounts keep it from changing it."""
    program = "import os\ndef f(path):\n    return os.chmod(path, os.stat(path).st_mode)\n"
    paths = ("/usr", "/usr/bin/env", os.path.realpath(sys.executable), "/", "/dev/null", "/etc/ld.so.cache")
    refused(isolated, program, [f"assert f({path!r}) == None" for path in paths])


@pytest.mark.parametrize(
    ("sandbox", "processes"),
    [
        ("bwrap", 3),  # bubblewrap, the init of its namespace, the program
        pytest.param("rlimits", 1, marks=pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")),
    ],
)
def test_nothing_is_left_when_the_worker_is_killed(sandbox: str, processes: int) -> None:
    with judge(wall_seconds=60.0, sandbox=sandbox) as here:
        assert here.score(GOOD, ["assert g() == 1"]) == 1.0
        worker = psutil.Process(here.worker())
        asked = threading.Thread(target=here.score, args=("import time\ntime.sleep(60)\n", ["assert g() == 1"]))
        asked.start()
        deadline = time.monotonic() + 30
        while len(worker.children(recursive=True)) < processes and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)  # until the program sleeps: before, the end of its pipe would end it
        family = worker.children(recursive=True)
        assert len(family) == processes
        os.kill(worker.pid, signal.SIGKILL)  # it alone, not its group
        _, alive = psutil.wait_procs(family, timeout=10)
        assert alive == []
        asked.join()
        assert here.left_over() == []


FORK = """
import os
def f():
    try:
        pid = os.fork()
    except OSError:
        return "refused"
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return "forked"
"""
SPAWN = "import subprocess\ndef f():\n    return subprocess.run(['/bin/echo', 'x'], capture_output=True).stdout\n"
BOMB = """
import os
def f():
    while True:
        try:
            os.fork()
        except OSError:
            pass
"""
DAEMON = """
import os, time
def f():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(60)
        os._exit(0)
    return 1
"""
CLONE = """
import ctypes
def f():
    return ctypes.CDLL(None).syscall(56, 17, 0, 0, 0, 0) >= 0
"""


def test_no_process_can_be_started(isolated: Judge) -> None:
    assert isolated.score(FORK, ["assert f() == 'refused'"]) == 1.0  # before anything bombs
    refused(isolated, SPAWN, ["assert f() == b'x\\n'"])
    refused(isolated, DAEMON, ["assert f() == 1"])
    refused(isolated, CLONE, ["assert f() == True"])
    refused(isolated, BOMB, ["assert f() == 1"])


def test_threads_are_allowed_and_end(isolated: Judge) -> None:
    program = """
import threading, time
def f():
    found = []
    one = threading.Thread(target=found.append, args=(1,))
    one.start(); one.join()
    for _ in range(5):
        threading.Thread(target=time.sleep, args=(60,)).start()
    return found
"""
    assert isolated.score(program, ["assert f() == [1]"]) == 1.0
    assert isolated.left_over() == []


MEMORY = {
    "at once": "def f():\n    return len(b'x' * (1 << 31))\n",
    "little by little": "def f():\n    parts = []\n    while True:\n        parts.append(bytearray(1 << 20))\n",
    "anonymous files": "import os\ndef f():\n    return os.memfd_create('x') >= 0\n",
    "on the disk": (
        "def f():\n    for n in range(20):\n        with open(str(n), 'wb') as file:\n"
        "            file.write(bytes(8 << 20))\n    return len(bytes(1 << 31))\n"
    ),
}


@pytest.mark.parametrize("way", MEMORY)
def test_memory(isolated: Judge, way: str) -> None:
    before = psutil.virtual_memory().available
    refused(isolated, MEMORY[way], ["assert f() == 1 << 31", "assert f() == True"])
    assert before - psutil.virtual_memory().available < 2 << 30


ENDLESS = {
    "loop": "def f():\n    while True: pass\n",
    "loop at once": "while True: pass\n",
    "sleep": "import time\ndef f():\n    time.sleep(600)\n",
    "C": "def f():\n    return 7 ** (10 ** 9)\n",
    "regex": "import re\ndef f():\n    return re.match('(a+)+$', 'a' * 40 + 'b')\n",
    "prints": "def f():\n    while True: print('x' * 1000)\n",
    "iterator": "import itertools\ndef f():\n    return itertools.repeat(1)\n",
    "flood": "import os\ndef f():\n    while True:\n        for n in range(3, 64):\n"
    "            try: os.write(n, b'x' * 60000)\n            except OSError: pass\n",
}


SLOW = ("loop at once", "C", "regex", "prints", "iterator")


@pytest.mark.parametrize("way", [pytest.param(way, marks=pytest.mark.slow) if way in SLOW else way for way in ENDLESS])
def test_without_end(isolated: Judge, way: str) -> None:
    refused(isolated, ENDLESS[way], ["assert f() == 1"])


def test_output_without_end(isolated: Judge) -> None:
    pairs = {"inputs": [""], "outputs": ["1"]}
    refused(isolated, "while True: print('x' * 1000)\n", pairs)
    refused(isolated, "import os\nwhile True: os.write(1, b'1' * 60000)\n", pairs)
    assert isolated.score("print(1)", pairs) == 1.0


KILLS = ["os.kill(os.getppid(), 9)", "os.kill(1, 9)", "os.kill(-1, 9)", "os.killpg(0, 9)", "os.kill(os.getpid(), 11)"]


@pytest.mark.parametrize("kill", KILLS)
def test_killing(isolated: Judge, kill: str) -> None:
    """In a process namespace of its own there is nobody else to be killed."""
    refused(isolated, f"import os\ndef f():\n    {kill}\n    return 2\n", ["assert f() == 1"])
