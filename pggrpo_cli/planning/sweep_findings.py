"""Whether a sweep fits the machine: the jobs that run at a time in its memory, what all of them keep on its disk."""

from __future__ import annotations

from dataclasses import dataclass

from pggrpo_cli.findings import Finding, ok, trouble, warning
from pggrpo_cli.planning.plan_findings import gigabytes, smaller
from pggrpo_cli.planning.run_plan import RunPlan
from pggrpo_cli.planning.sweep_plan import Kind, SweepPlan

AT_A_TIME = {"processes": "sweep.jobs", "joblib": "hydra.launcher.n_jobs"}
"""Which key says how many jobs a launcher runs at a time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Need:
    """Of one device, in bytes."""

    device: str
    at_a_time: int
    """Jobs on it; of several GPUs, on each."""
    peaks: tuple[int, ...]
    """Of each job that may run there, the largest first."""
    free: int
    total: int
    largest: RunPlan

    @property
    def needed(self) -> int:
        """By the largest that may come together."""
        return sum(self.peaks[: self.at_a_time])

    def fitting(self, room: int) -> int:
        """How many fit, the largest ones; 0 if not even one does."""
        return max(count for count in range(len(self.peaks) + 1) if sum(self.peaks[:count]) <= room)


def sweep_findings(plan: SweepPlan) -> list[Finding]:
    """Of memory and of the disk; trouble only where it cannot fit."""
    return [*_of_memory(plan), _of_the_disk(plan)]


def sweep_fits(plan: SweepPlan) -> bool:
    return all(one.status != "trouble" for one in sweep_findings(plan))


def needs_of(plan: SweepPlan) -> list[Need]:
    """By device; none where the jobs run elsewhere. GPUs that the launcher gives out are alike: the jobs are dealt to them in
    turn."""
    turns, found = plan.found.turns, list[Need]()
    if turns.launcher == "elsewhere":
        return found
    for device in dict.fromkeys(kind.device for kind in plan.kinds):
        kinds = [kind for kind in plan.kinds if kind.device == device]
        peaks = sorted((_peak(kind) for kind in kinds for _ in kind.numbers), reverse=True)
        here = turns.at_a_time if kinds[0].plan.on_cpu or not turns.gpus else -(-turns.at_a_time // len(turns.gpus))
        found.append(
            Need(
                device=device,
                at_a_time=min(here, len(peaks)),
                peaks=tuple(peaks),
                free=min(kind.plan.memory_free for kind in kinds),
                total=kinds[0].plan.memory_total,
                largest=max(kinds, key=_peak).plan,
            )
        )
    return found


def _peak(kind: Kind) -> int:
    return kind.plan.memory.peak + (sum(kind.plan.beside.values()) if kind.plan.on_cpu else 0)


def _of_memory(plan: SweepPlan) -> list[Finding]:
    if plan.found.turns.launcher == "elsewhere":
        largest = max(_peak(kind) for kind in plan.kinds)
        return [ok("memory", f"about {gigabytes(largest)} a job at most; where the jobs run cannot be seen from here")]
    return [_of_a_device(one, plan) for one in needs_of(plan)]


def _of_a_device(need: Need, plan: SweepPlan) -> Finding:
    several = len(plan.found.turns.gpus) > 1 and need.device != "cpu"
    name = "memory" if len({kind.device for kind in plan.kinds}) == 1 else f"memory of {need.device}"
    jobs = "1 job takes" if need.at_a_time == 1 else f"{need.at_a_time} jobs at a time take"
    where = " on each GPU" if several else ""
    said = f"{jobs} about {gigabytes(need.needed)} at most{where}; {gigabytes(need.free)} of {gigabytes(need.total)} are free"
    if need.needed > need.total:
        return trouble(name, said, _fewer(need, plan, need.total))
    if need.needed > need.free:
        return warning(name, said, f"end other programs, or {_fewer(need, plan, need.free)}")
    return ok(name, said)


def _fewer(need: Need, plan: SweepPlan, room: int) -> str:
    """Fewer jobs at a time, if some fit; else smaller ones."""
    key, count = AT_A_TIME.get(plan.found.turns.launcher), min(need.fitting(room), need.at_a_time - 1)
    if key is None or count < 1:
        return smaller(need.largest)
    return f"{key}={count * (1 if need.largest.on_cpu else max(1, len(plan.found.turns.gpus)))}, or {smaller(need.largest)}"


def disk_peak(plan: SweepPlan) -> int:
    """What all jobs keep, and the checkpoints that those at work are writing."""
    kept = writing = 0
    for kind in plan.kinds:
        disk, counts = kind.plan.disk, kind.plan.counts
        kept += len(kind.numbers) * (counts.kept * disk.checkpoint + disk.lines)
        writing = max(writing, disk.at_once - counts.kept * disk.checkpoint)
    return kept + plan.found.turns.at_a_time * writing


def _of_the_disk(plan: SweepPlan) -> Finding:
    least = sum(len(kind.numbers) * kind.plan.disk.checkpoint for kind in plan.kinds)
    free = min(kind.plan.disk_free for kind in plan.kinds)
    peak = disk_peak(plan)
    said = (
        f"a checkpoint of each job takes {gigabytes(least)}, all of the sweep up to {gigabytes(peak)}; "
        f"{gigabytes(free)} are free"
    )
    advice = "free some, lower checkpoint.keep_last, sweep over less, or give another hydra.sweep.dir"
    if least > free:
        return trouble("disk", said, advice)
    return warning("disk", said, advice) if peak > free else ok("disk", said)
