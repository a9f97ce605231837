"""A sweep foreseen: which jobs are of a kind, how many run at a time, what they take together."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pggrpo_cli.command.train import check_all
from pggrpo_cli.errors import ConfigError
from pggrpo_cli.planning import sweep_plan
from pggrpo_cli.planning.run_plan import RunPlan, plan_run
from pggrpo_cli.planning.sweep_findings import disk_peak, needs_of, sweep_findings, sweep_fits
from pggrpo_cli.planning.sweep_plan import Kind, SweepPlan, plan_sweep
from pggrpo_cli.planning.swept_jobs import SweptJobs, Turns, swept_jobs
from tests.tracking.fake_library import need

TINY = ["model=tiny", "logger=[]"]


@pytest.fixture(autouse=True)
def _aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr("pggrpo_cli.sweep.shares.visible_gpus", lambda: ())


@pytest.fixture(scope="module")
def one_run() -> RunPlan:
    found = swept_jobs(TINY, None, check_all)
    return plan_sweep(found).kinds[0].plan


def jobs(*words: str) -> SweptJobs:
    return swept_jobs([*TINY, *words], None, check_all)


def test_what_is_swept() -> None:
    found = jobs("loss=grpo,pg_grpo", "seed=1,2,3", "++optimizer.eps=1e-8")
    assert found.swept == {"loss": ["grpo", "pg_grpo"], "seed": ["1", "2", "3"]}
    assert (found.count, len(found.jobs), found.searches) == (6, 6, False)
    assert found.place.parts[:2] == ("outputs", "sweeps")
    assert not Path("outputs").exists()


def test_the_first_wrong_job_is_named() -> None:
    with pytest.raises(ConfigError, match=r"This is job 1 of the sweep \(.*loss.beta=-1\)"):
        jobs("loss.beta=0.1,-1")


@pytest.mark.parametrize(
    ("words", "turns"),
    [
        (["seed=1,2,3"], Turns(at_a_time=1, threads=None, gpus=(), launcher="processes")),
        (["seed=1,2,3", "sweep.jobs=2"], Turns(at_a_time=2, threads=3, gpus=(), launcher="processes")),
        (["seed=1,2", "sweep.jobs=8"], Turns(at_a_time=2, threads=3, gpus=(), launcher="processes")),
        (
            ["seed=1,2", "sweep.jobs=2", "hydra/launcher=basic"],
            Turns(at_a_time=1, threads=None, gpus=(), launcher="basic"),
        ),
    ],
)
def test_at_a_time(words: list[str], turns: Turns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pggrpo_cli.sweep.shares.default_workers", lambda: 6)
    assert jobs(*words).turns == turns


def test_one_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pggrpo_cli.sweep.shares.visible_gpus", lambda: ("0", "1"))
    assert jobs("seed=1,2,3").turns.at_a_time == 2
    assert jobs("seed=1,2,3").turns.gpus == ("0", "1")
    assert jobs("seed=1,2,3", "device=cpu").turns.gpus == ()


def test_with_the_launchers_of_others() -> None:
    for plugin in ("hydra_joblib_launcher", "hydra_submitit_launcher"):
        need(f"hydra_plugins.{plugin}")
    found = jobs("seed=1,2,3", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2").turns
    assert (found.at_a_time, found.launcher) == (2, "joblib")
    found = jobs("seed=1,2,3", "hydra/launcher=slurm", "hydra.launcher.array_parallelism=2").turns
    assert (found.at_a_time, found.launcher) == (2, "elsewhere")


def test_a_search() -> None:
    need("hydra_plugins.hydra_optuna_sweeper")
    found = jobs("experiment=tune_pg_grpo", "model=tiny", "loss.kl_coef=0.0", "sweep.jobs=8")
    assert found.searches
    assert list(found.swept) == ["loss.beta", "optimizer.lr"]  # what is typed holds before a range of the file's
    assert found.swept["loss.beta"] == ["tag(log, interval(0.03, 1.0))"]
    assert (found.count, found.turns.at_a_time, len(found.jobs)) == (24, 2, 1)
    assert found.jobs[0].config["loss"]["kl_coef"] == 0.0
    grid = jobs("hydra/sweeper=optuna", "hydra/sweeper/sampler=grid", "seed=choice(1,4,6)", "loss.beta=choice(0.1,0.2)")
    assert grid.count == 6
    with pytest.raises(ConfigError, match="no job would be started"):
        jobs("experiment=tune_pg_grpo", "model=tiny", "sampler.top_p=2")


def planned(monkeypatch: pytest.MonkeyPatch, one_run: RunPlan, *words: str) -> tuple[SweepPlan, list[dict[str, Any]]]:
    """Without planning: (the sweep, the configurations that would have been planned)."""
    seen: list[dict[str, Any]] = []

    def plan(config: Any, place: Path, base: int | None) -> RunPlan:
        seen.append({"loss": config.loss, "sampler": config.sampler, "base": base, "place": place})
        return replace(one_run, base=7)

    monkeypatch.setattr(sweep_plan, "plan_run", plan)
    return plan_sweep(jobs(*words)), seen


@pytest.mark.parametrize(
    ("words", "kinds"),
    [
        (["seed=1,2", "optimizer.lr=1e-5,2e-5", "loss.beta=0.1,0.2", "sampler.temperature=0.5,1"], [("", 16)]),
        (["loss=grpo,pg_grpo", "seed=1,2,3"], [("loss=grpo", 3), ("loss=pg_grpo", 3)]),
        (["loss.kl_coef=0,0.1,0.2"], [("loss.kl_coef=0", 1), ("", 2)]),  # without a KL there is no reference
        (["sampler.group_size=2,4", "seed=1,2"], [("sampler.group_size=2", 2), ("sampler.group_size=4", 2)]),
        (["trainer.max_steps=2,4"], [("trainer.max_steps=2", 1), ("trainer.max_steps=4", 1)]),
    ],
)
def test_kinds(
    words: list[str], kinds: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch, one_run: RunPlan
) -> None:
    plan, seen = planned(monkeypatch, one_run, *words)
    assert len(seen) == len(kinds)
    for kind, (said, count) in zip(plan.kinds, kinds, strict=True):
        assert len(kind.numbers) == count
        assert kind.words == said or not said
    assert sorted(number for kind in plan.kinds for number in kind.numbers) == list(range(plan.jobs))
    assert [one["base"] for one in seen] == [None, *[7] * (len(seen) - 1)]  # what planning left behind is of no job


def test_an_error_that_needs_the_data_names_its_job() -> None:
    with pytest.raises(
        ConfigError, match=r"600 leaves no room(?s:.*)This is job 1 of the sweep \(.*max_new_tokens=600\)"
    ):
        plan_sweep(jobs("sampler.max_new_tokens=8,600"))


def of(
    one_run: RunPlan, peaks: Sequence[int], turns: Turns, *, cpu: bool = True, room: int = 100, free: int = 80
) -> SweepPlan:
    """Jobs of such peaks, in bytes."""
    found = SweptJobs(place=Path("swept"), jobs=[], count=len(peaks), swept={}, searches=False, turns=turns)
    kinds = [
        Kind(
            numbers=(number,), words="", device="cpu" if cpu else "cuda",
            plan=replace(
                one_run, memory=replace(one_run.memory, phases={"update": {"activations": peak}}), on_cpu=cpu,
                memory_total=room, memory_free=free, beside={},
            ),
        )
        for number, peak in enumerate(peaks)
    ]  # fmt: skip
    return SweepPlan(found=found, kinds=kinds)


def turns(at_a_time: int, gpus: tuple[str, ...] = (), launcher: Any = "processes") -> Turns:
    return Turns(at_a_time=at_a_time, threads=None, gpus=gpus, launcher=launcher)


def test_memory_is_of_the_largest_that_come_together(one_run: RunPlan) -> None:
    assert one_run.memory.peak > 0
    for at_a_time, needed, status in ((1, 50, "ok"), (2, 85, "warning"), (3, 105, "trouble")):
        plan = of(one_run, [20, 50, 10, 35], turns(at_a_time))
        (need_of,) = needs_of(plan)
        finding = sweep_findings(plan)[0]
        assert (need_of.needed, finding.status) == (needed, status)
        assert sweep_fits(plan) == (status != "trouble")
    assert "sweep.jobs=2, or lower trainer.micro_batch_tokens" in finding.advice
    only_one = sweep_findings(of(one_run, [120, 110], turns(2)))[0]
    assert only_one.status == "trouble"
    assert "sweep.jobs" not in only_one.advice


def test_gpus_are_dealt_out(one_run: RunPlan) -> None:
    peaks = [40, 40, 40, 40]
    for count, at_a_time, needed in ((2, 2, 40), (2, 4, 80), (3, 4, 80), (1, 4, 160)):
        plan = of(one_run, peaks, turns(at_a_time, tuple(map(str, range(count)))), cpu=False)
        assert [one.needed for one in needs_of(plan)] == [needed]
        assert ("on each GPU" in sweep_findings(plan)[0].says) == (count > 1)
    assert [one.needed for one in needs_of(of(one_run, peaks, turns(3), cpu=False))] == [120]  # one that was named
    crowded = sweep_findings(of(one_run, peaks, turns(6, ("0", "1")), cpu=False))[0]
    assert "sweep.jobs=4, or" in crowded.advice


def test_elsewhere_nothing_is_known_of_the_machine(one_run: RunPlan) -> None:
    plan = of(one_run, [500], turns(1, launcher="elsewhere"))
    assert needs_of(plan) == []
    assert sweep_findings(plan)[0].status == "ok"


def test_the_disk_of_all(one_run: RunPlan) -> None:
    plan = of(one_run, [1, 1, 1], turns(2))
    disk, counts = one_run.disk, one_run.counts
    writing = disk.at_once - counts.kept * disk.checkpoint
    assert disk_peak(plan) == 3 * (counts.kept * disk.checkpoint + disk.lines) + 2 * writing
    least = 3 * disk.checkpoint
    for free, status in ((least - 1, "trouble"), (least, "warning"), (disk_peak(plan), "ok")):
        kinds = [replace(kind, plan=replace(kind.plan, disk_free=free)) for kind in plan.kinds]
        assert sweep_findings(replace(plan, kinds=kinds))[-1].status == status


def test_a_run_that_is_planned_with_a_base_of_its_own(one_run: RunPlan) -> None:
    from pggrpo_cli import config as schema

    config = schema.build(jobs().jobs[0].config)
    assert plan_run(config, Path("x"), 10**9).memory.peak - plan_run(config, Path("x"), 10**8).memory.peak == 9 * 10**8
