"""Processes that run rewards, each with a thread here that hands it one call at a time and kills it when time is up.

A call that hangs, in Python or in C, or that dies fails its own completions only; the process is replaced. The processes
are started by name, neither forked (torch and its threads would come along) nor spawned by multiprocessing (which runs
the user's main module again), each in a process group of its own, so that its children go with it and Ctrl-C passes it by.
"""

from __future__ import annotations

import json
import math
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from pggrpo_cli.errors import PggrpoError, RewardTraceback, UserCodeError
from pggrpo_cli.scoring.answers import Answers, all_failed
from pggrpo_cli.scoring.messages import decode_answers, encode_samples, from_bytes, to_bytes
from pggrpo_cli.scoring.output import Output
from pggrpo_cli.scoring.reaper import Reaper
from pggrpo_cli.scoring.worker import REFUSALS
from pggrpo_cli.types import RewardContext, Sample

LOAD_SECONDS = 120
"""For a process to start and a reward to be imported and opened."""

LOOK_SECONDS = 1.0
"""How often it is looked whether a silent process is still alive."""

TAIL = 3000
"""Bytes of what a process printed that are shown when it dies."""

START = """
import sys
sys.path[:] = [folder for folder in sys.path if folder]  # not the folder in which it starts
import json
sys.path[:] = json.loads(sys.argv[2])
from pggrpo_cli.scoring.worker import main
main(int(sys.argv[1]))
"""
PROCESSORS = "PGGRPO_PROCESSORS"
"""The variable that a sweep tells its jobs their share of the processors with."""
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


@dataclass(frozen=True, kw_only=True, slots=True)
class IsolatedReward:
    """A reward's node, and how long one call may take."""

    name: str
    node: Mapping[str, Any]
    timeout_s: float | None


@dataclass(frozen=True, slots=True)
class _Call:
    reward: IsolatedReward
    samples: Sequence[Sample]
    result: Future[Answers]


class Pool:
    """At most `workers` processes; each is started when a call finds all others busy."""

    def __init__(self, workers: int, context: RewardContext, output: Output) -> None:
        self._limit, self._context, self._output = workers, context, output
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._workers: list[_Worker] = []
        self._waiting = 0
        self.notes: dict[str, str] = {}
        """What each reward says of itself, once it is loaded."""
        self._lock = threading.Lock()
        self._reaper = Reaper()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        """Kills what is still at work."""
        for worker in self._workers:
            worker.closed = True
        with suppress(queue.Empty):
            while (call := self._calls.get_nowait()) is not None:
                call.result.cancel()
        for worker in self._workers:
            self._calls.put(None)
            worker.kill()
        for thread in self._threads:
            thread.join()
        self._reaper.close()

    def submit(self, reward: IsolatedReward, samples: Sequence[Sample]) -> Future[Answers]:
        """One call of the reward with these samples. The future raises a PggrpoError only for what ends the run."""
        call = _Call(reward, samples, Future())
        with self._lock:
            self._waiting += 1
            if self._waiting > len(self._threads) and len(self._threads) < self._limit:
                self._start_worker()
        self._calls.put(call)
        return call.result

    @property
    def printed(self) -> str:
        """By its processes, where there is no run to keep it."""
        return self._output.kept.decode("utf-8", "replace")

    def pids(self) -> list[int]:
        """Of the processes that are alive."""
        return [worker.pid for worker in self._workers if worker.pid is not None]

    def _start_worker(self) -> None:
        worker = _Worker(self._context, self._output, self._reaper, self.notes)
        thread = threading.Thread(target=self._serve, args=(worker,), name="reward worker", daemon=True)
        self._workers.append(worker)
        self._threads.append(thread)
        thread.start()

    def _serve(self, worker: _Worker) -> None:
        while (call := self._calls.get()) is not None:
            try:
                if call.result.set_running_or_notify_cancel():
                    call.result.set_result(worker.run(call.reward, call.samples))
            except BaseException as error:
                call.result.set_exception(error)
            finally:
                with self._lock:
                    self._waiting -= 1


class _Worker:
    """One process at a time, used by one thread."""

    def __init__(self, context: RewardContext, output: Output, reaper: Reaper, notes: dict[str, str]) -> None:
        self._context, self._output, self._reaper, self._notes = context, output, reaper, notes
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._loaded: set[str] = set()
        self._printed = b""
        """The last that the process printed."""
        self.closed = False

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def run(self, reward: IsolatedReward, samples: Sequence[Sample]) -> Answers:
        """Raises ConfigError, DataError or UserCodeError for what is no fault of the completions."""
        if reward.name not in self._loaded:
            self._load(reward)
        message = {"name": reward.name, "samples": encode_samples(samples), "seed": self._context.seed}
        try:
            return decode_answers(_accepted(self._ask(message, reward.timeout_s)))
        except TimeoutError:
            words = f"took longer than timeout_s={reward.timeout_s:g} seconds"
            return all_failed(len(samples), words, seconds=reward.timeout_s or 0.0)
        except EOFError as death:
            return all_failed(len(samples), str(death), self._last_words())

    def kill(self) -> None:
        """The process with all its children. Whoever waits for its answer sees the end of the connection."""
        process = self._process
        if process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)

    def _load(self, reward: IsolatedReward) -> None:
        if self._process is None:
            self._start()
        folder = self._context.run_dir
        context = asdict(self._context) | {"run_dir": None if folder is None else str(folder.absolute())}
        message = {"name": reward.name, "node": reward.node, "context": context}
        try:
            self._notes[reward.name] = _accepted(self._ask(message, LOAD_SECONDS))["loaded"]
        except TimeoutError:
            raise UserCodeError(f"`reward.{reward.name}`: was not ready after {LOAD_SECONDS} seconds.") from None
        except EOFError as death:
            raise UserCodeError(f"`reward.{reward.name}`: {death} while it was loaded. {self._last_words()}") from None
        self._loaded.add(reward.name)

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", START, str(theirs.fileno()), json.dumps(sys.path)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=os.environ | ONE_THREAD | {"TOKENIZERS_PARALLELISM": "false"},
            )
        self._reaper.watch(self._process.pid)
        self._connection, self._printed = Connection(ours.detach()), b""
        if self.closed:  # the pool was closed between the check and the start
            self.kill()

    def _ask(self, message: Mapping[str, Any], seconds: float | None) -> Any:
        """The worker's answer. Raises TimeoutError or EOFError; then the process is gone."""
        assert self._process is not None
        assert self._process.stdout is not None
        assert self._connection is not None
        text = to_bytes(message)
        deadline = math.inf if seconds is None else time.monotonic() + seconds
        stdout = self._process.stdout
        sources: list[Any] = [self._connection, stdout]
        try:
            self._connection.send_bytes(text)
            while (left := deadline - time.monotonic()) > 0:
                ready = wait(sources, min(left, LOOK_SECONDS))
                if self._connection in ready:
                    if wait([stdout.fileno()], 0):  # what it printed before it answered
                        self._read(stdout.fileno())
                    return from_bytes(self._connection.recv_bytes())
                if stdout in ready and not self._read(stdout.fileno()):
                    sources.remove(stdout)
                if not ready and self._process.poll() is not None:
                    raise EOFError  # a child that it left behind may hold the connection open
            raise TimeoutError
        except TimeoutError:
            self._end()
            raise
        except (EOFError, OSError):
            raise EOFError(self._end()) from None

    def _read(self, descriptor: int) -> bytes:
        data = self._output.take(descriptor)
        self._printed = (self._printed + data)[-TAIL:]
        return data

    def _last_words(self) -> str:
        return self._printed.decode("utf-8", "replace").strip()

    def _end(self) -> str:
        """Kills and reaps the process; what it died of."""
        assert self._process is not None
        assert self._process.stdout is not None
        assert self._connection is not None
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(0.2)  # one that has died by itself tells of what
        code = self._process.poll()
        self.kill()
        self._process.wait()
        while wait([self._process.stdout.fileno()], 0.1) and self._read(self._process.stdout.fileno()):
            pass
        self._reaper.forget(self._process.pid)
        self._process.stdout.close()
        self._connection.close()
        self._process = self._connection = None
        self._loaded.clear()
        if code is None:
            return "was killed"
        return f"died: {signal.Signals(-code).name}" if code < 0 else f"ended its process with exit code {code}"


def _accepted(answer: Any) -> Any:
    """Raises what the worker refused with."""
    if "refused" not in answer:
        return answer
    kind: type[PggrpoError] = REFUSALS.get(answer["refused"], UserCodeError)
    raise kind(answer["message"]) from (RewardTraceback(answer["traceback"]) if answer["traceback"] else None)


def default_workers() -> int:
    """As many as there are processors for this process; of a sweep's jobs at a time each has its share."""
    share = os.environ.get(PROCESSORS, "")
    if share.isdecimal():
        return max(1, int(share))
    affinity = getattr(os, "sched_getaffinity", None)
    return max(1, len(affinity(0)) if affinity is not None else os.cpu_count() or 1)
