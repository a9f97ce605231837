"""A process that runs rewards for the trainer: one call at a time, in its main thread, with one thread for its libraries.

Whatever a reward does to its process stays here: it may hang, die, print, change the folder, draw random numbers, start
children. The trainer kills the whole process group when a call takes too long.
"""

from __future__ import annotations

import faulthandler
import hashlib
import os
import random
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pggrpo_cli.errors import ConfigError, DataError, PggrpoError, Unavailable
from pggrpo_cli.instantiate import component
from pggrpo_cli.scoring.answers import call, described, opened
from pggrpo_cli.scoring.messages import decode_samples, encode_answers, from_bytes, to_bytes
from pggrpo_cli.types import RewardContext, Sample

REFUSALS = {"ConfigError": ConfigError, "DataError": DataError, "Unavailable": Unavailable}
"""Errors of ours that end the run, whatever `on_error` says; every other one is the user's code at fault."""


def main(socket: int) -> None:
    """Answers the trainer's messages until it hangs up."""
    faulthandler.enable()  # a crash in C leaves its traceback on stderr, which the trainer reads
    connection, folder, process = Connection(socket), Path.cwd(), os.getpid()
    rewards: dict[str, Any] = {}
    with ExitStack() as stack:
        while True:
            try:
                message = from_bytes(connection.recv_bytes())
            except (EOFError, OSError):
                return
            answer = _answer(message, rewards, stack)
            if os.getpid() != process:
                os._exit(0)  # a child that the reward forked and forgot to end: only one may answer
            os.chdir(folder)
            sys.stdout.flush()
            connection.send_bytes(to_bytes(answer))


def _answer(message: Mapping[str, Any], rewards: dict[str, Any], stack: ExitStack) -> dict[str, Any]:
    name = message["name"]
    try:
        if "node" in message:
            folder = message["context"]["run_dir"]
            context = RewardContext(**message["context"] | {"run_dir": None if folder is None else Path(folder)})
            rewards[name] = stack.enter_context(opened(component(message["node"], f"reward.{name}"), name, context))
            return {"loaded": described(rewards[name])}
        samples = decode_samples(message["samples"])
        _seed(message["seed"], name, samples)
        return encode_answers(call(rewards[name], samples))
    except PggrpoError as error:
        cause = error.__cause__
        return {"refused": type(error).__name__, "message": str(error), "traceback": _trace(cause)}


def _trace(error: BaseException | None) -> str:
    import traceback

    return "" if error is None else "".join(traceback.format_exception(error))


def _seed(seed: int, name: str, samples: Sequence[Sample]) -> None:
    """A reward that draws random numbers draws the same ones for the same completions: a resumed run scores alike."""
    text = "|".join([str(seed), name, *(sample.completion for sample in samples)])
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    random.seed(int.from_bytes(digest, "little"))
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if numpy is not None:
        numpy.random.seed(int.from_bytes(digest[:4], "little"))
    if torch is not None:
        torch.manual_seed(int.from_bytes(digest, "little") >> 1)
