"""kill -9 anywhere, and the run that goes on ends with the very bytes of the one that nobody killed.

Tables of what was tried: make faults, docs/faults.md.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from tests.command_line import environment, run
from tests.killing import KILLED, POINTS, Ended, Killer, fingerprint

pytestmark = pytest.mark.slow

STEPS = 4
COMMON = [
    "train", "debug=fast", "logger=[]", "seed=3", "trainer.prompts_per_step=4", "checkpoint.every=2",
    "checkpoint.keep_last=1", "optimizer.lr=1e-2", "hydra.run.dir=run", "resume.from=auto", "self_check.enabled=false",
]  # fmt: skip
ONLINE = [
    *COMMON, "data.eval_size=8", "sampler.group_size=4", "sampler.max_new_tokens=8", "evaluation.every=2",
    "evaluation.num_prompts=3", "evaluation.max_new_tokens=6", "reward=[length,exact_answer]",
]  # fmt: skip
OFFLINE = [*COMMON, "data=preference_jsonl", "data.path=../../pairs.jsonl", "evaluation.every=null"]
Record = Callable[[str, object], None]


@pytest.fixture(scope="module")
def killer() -> Iterator[Killer]:
    killer = Killer()
    yield killer
    killer.close()


def folder(tmp_path: Path, name: str) -> Path:
    """Where nothing else is found by resume.from=auto."""
    made = tmp_path / name / "here"
    made.mkdir(parents=True)
    return made


def completed(killer: Killer, command: list[str], place: Path) -> Ended:
    ended = killer.run(command, place)
    assert ended.code == 0, ended.output
    return ended


@pytest.mark.fault("T1", "T2")
@pytest.mark.timeout(1800)
def test_at_every_point(killer: Killer, tmp_path: Path, record_property: Record) -> None:
    """Each kind of event, its first, a middle and its last time; then the events of the run that goes on, too."""
    command = [
        *ONLINE, f"trainer.max_steps={STEPS}", "trainer.passes_per_rollout=2", "trainer.micro_batch_tokens=150",
        "checkpoint.every=1",
    ]  # fmt: skip
    whole = folder(tmp_path, "whole")
    events = completed(killer, command, whole).events
    expected = fingerprint(whole / "run", STEPS)
    assert [line["step"] for line in expected["metrics"]] == list(range(STEPS + 1))
    assert {event.partition(" ")[2] for event in events} >= set(POINTS) - {
        "offline rollout",
        "restoring",
        "cutting back",
    }
    places = sorted(
        place
        for name in dict.fromkeys(events)
        for times in [[number for number, event in enumerate(events, 1) if event == name]]
        for place in {times[0], times[len(times) // 2], times[-1]}
    )
    assert len(places) > 100
    kills: list[int] = []

    def equal(killer: Killer, place: int) -> bool:
        killed = folder(tmp_path, str(place))
        assert killer.run(command, killed, place).code == KILLED
        kills.append(place)
        if place % 5 == 0:  # and once more, soon after it went on
            again = killer.run(command, killed, 7).code
            assert again in (KILLED, 0)
            kills.extend([place] * (again == KILLED))
        ended = killer.run(["resume", "run"], killed) if place % 2 else None
        if ended is None or ended.code == 4:  # before the first checkpoint
            ended = completed(killer, command, killed)
        assert ended.code == 0, ended.output
        found = fingerprint(killed / "run", STEPS)
        shutil.rmtree(killed)
        return found == expected

    with closing(Killer()) as other, ThreadPoolExecutor(2) as threads:
        halves = [
            threads.submit(lambda h=half, p=part: [(place, equal(h, place)) for place in p])
            for half, part in ((killer, places[::2]), (other, places[1::2]))
        ]
        results = [result for half in halves for result in half.result()]
    record_property("kills", len(kills))
    assert [f"{place}: {events[place - 1]}" for place, same in results if not same] == []


METHODS = {
    "pg_grpo": ([*ONLINE, "loss=pg_grpo"], {"none": "loss.kl_coef=0", "frozen": "loss.kl_coef=0.1"}),
    "grpo": ([*ONLINE, "loss=grpo"], {"none": "loss.kl_coef=0", "frozen": "loss.kl_coef=0.1"}),
    "dpo offline": (
        [*OFFLINE, "loss=dpo"],
        {"none": "loss.reference_free=true", "frozen": "loss.reference_free=false"},
    ),
}
ONE = ["trainer.micro_batch_tokens=8192"]
FOUR = ["trainer.micro_batch_tokens=1", "trainer.skip_zero_advantages=false"]
"""Four groups a step: the smallest budget gives every group, or part of one, a micro-batch of its own."""


PHASES = ("evaluation", "a token", "scoring", "micro-batch", "optimizer step", "metrics", "manifest", "rename", "purge")


@pytest.mark.fault("T5")
@pytest.mark.parametrize("times", [1, 2])
def test_signals_in_every_phase(times: int, killer: Killer, tmp_path: Path) -> None:
    """Once: saved, exit 75, and says how to go on. Twice: ended at once. Either way the run goes on bit for bit."""
    command = [*ONLINE, f"trainer.max_steps={STEPS}"]
    whole = folder(tmp_path, "whole")
    events = completed(killer, command, whole).events
    first_rollout = events.index("before rollout", events.index("after evaluation"))
    for phase in PHASES:
        place = events.index(f"before {phase}", first_rollout) + 1
        stopped = folder(tmp_path, phase)
        ended = killer.run(command, stopped, place, signal.SIGTERM, times)
        assert ended.code == (75 if times == 1 else 143), (phase, ended.output)
        assert ("Go on with: pggrpo resume run" if times == 1 else "ended at once") in ended.output
        if times == 1:
            assert killer.run(["resume", "run"], stopped).code == 0
        else:
            completed(killer, command, stopped)
        assert fingerprint(stopped / "run", STEPS) == fingerprint(whole / "run", STEPS), phase


def write_pairs(file: Path) -> None:
    rows = [{"prompt": f"{a} + 1", "chosen": f"{a + 1}", "rejected": f"no {a}"} for a in range(20)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("reference", ["none", "frozen"])
@pytest.mark.parametrize("micro_batches", [1, 4])
@pytest.mark.parametrize("passes", [1, 3])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.fault("T1")
def test_matrix(
    method: str,
    passes: int,
    micro_batches: int,
    reference: str,
    killer: Killer,
    tmp_path: Path,
    record_property: Record,
) -> None:
    """Up to five random kills, one after the other, on the way to the end."""
    write_pairs(tmp_path / "pairs.jsonl")
    command, references = METHODS[method]
    command = [
        *command, references[reference], f"trainer.max_steps={STEPS}", f"trainer.passes_per_rollout={passes}",
        *(ONE if micro_batches == 1 else FOUR),
    ]  # fmt: skip
    whole, killed = folder(tmp_path, "whole"), folder(tmp_path, "killed")
    events = completed(killer, command, whole).events
    micro = events.count("before micro-batch")
    assert micro == STEPS * passes if micro_batches == 1 else micro >= STEPS * passes * micro_batches
    assert ("before reference" in events) == (reference == "frozen")
    generator = random.Random(f"{method}{passes}{micro_batches}{reference}")
    kills = 0
    for _ in range(8):
        kills += killer.run(command, killed, generator.randint(1, len(events) // 2)).code == KILLED
        if kills == 5:
            break
    completed(killer, command, killed)
    record_property("kills", kills)
    assert kills >= 3
    assert fingerprint(killed / "run", STEPS) == fingerprint(whole / "run", STEPS)


@pytest.mark.fault("T3")
def test_thirty_random_kills(killer: Killer, tmp_path: Path, record_property: Record) -> None:
    """A run of 20 steps that never lives for long."""
    command = [*ONLINE, "trainer.max_steps=20", "checkpoint.every=1", "trainer.micro_batch_tokens=150"]
    whole, killed = folder(tmp_path, "whole"), folder(tmp_path, "killed")
    events = completed(killer, command, whole).events
    generator = random.Random(30)
    kills = 0
    while kills < 30:
        ended = killer.run(command, killed, generator.randint(1, len(events) // 10))
        if ended.code == 0:
            break
        assert ended.code == KILLED, ended.output
        kills += 1
    completed(killer, command, killed)
    record_property("kills", kills)
    assert kills == 30
    assert fingerprint(killed / "run", 20) == fingerprint(whole / "run", 20)


@pytest.mark.fault("T1")
def test_a_run_that_had_met_its_target(killer: Killer, tmp_path: Path, record_property: Record) -> None:
    """Killed between its last checkpoint and the mark that it is finished: nothing is left to train."""
    command = [
        *ONLINE,
        "trainer.max_steps=9",
        "trainer.target_reward=-1e9",
        "evaluation.every=null",
        "data.eval_size=0",
    ]
    whole, killed = folder(tmp_path, "whole"), folder(tmp_path, "killed")
    events = completed(killer, command, whole).events
    for go_on in (command, ["resume", "run"]):
        assert killer.run(command, killed, events.index("before finished") + 1).code == KILLED
        assert completed(killer, go_on, killed).code == 0
        assert fingerprint(killed / "run", 1) == fingerprint(whole / "run", 1)
        shutil.rmtree(killed / "run")
    record_property("kills", 2)


@pytest.mark.fault("T4")
def test_before_the_first_checkpoint(killer: Killer, tmp_path: Path) -> None:
    """resume says so and exits 4; resume.from=auto begins anew."""
    command = [*ONLINE, f"trainer.max_steps={STEPS}"]
    place = folder(tmp_path, "killed")
    events = completed(killer, command, folder(tmp_path, "whole")).events
    assert killer.run(command, place, events.index("before manifest") + 1).code == KILLED
    asked = killer.run(["resume", "run"], place)
    assert asked.code == 4
    assert "no complete checkpoint" in asked.output
    completed(killer, command, place)


@pytest.mark.fault("T1")
def test_smollm2(tmp_path: Path, record_property: Record) -> None:
    """The program as it is installed, a real model, killed in the middle of its second step."""
    command = [
        "train", "logger=[]", "trainer.max_steps=2", "trainer.prompts_per_step=2", "sampler.group_size=4",
        "sampler.max_new_tokens=12", "data.eval_size=0", "evaluation.every=null", "checkpoint.every=1",
        "checkpoint.keep_last=1", "checkpoint.keep_best=null", "hydra.run.dir=run",
    ]  # fmt: skip
    whole, killed = folder(tmp_path, "whole"), folder(tmp_path, "killed")
    done = run(command, whole)
    assert done.returncode == 0, done.stderr
    program = subprocess.Popen(
        [sys.executable, "-m", "pggrpo_cli", *command], cwd=killed, env=environment(), stderr=subprocess.DEVNULL
    )
    first = killed / "run" / "checkpoints" / "step-000001" / "manifest.json"
    while not first.exists():
        assert program.poll() is None
        time.sleep(0.01)
    time.sleep(1.0)
    program.kill()
    assert program.wait() == KILLED
    assert len((killed / "run" / "metrics.jsonl").read_text().splitlines()) == 1
    went_on = run(["resume", "run"], killed)
    assert went_on.returncode == 0, went_on.stderr
    record_property("kills", 1)
    assert fingerprint(killed / "run", 2) == fingerprint(whole / "run", 2)
