"""The plan of a sweep for a terminal, a pipe or a program."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

from pggrpo_cli.planning.plan_display import outcome, print_parts, table_of, verdict
from pggrpo_cli.planning.plan_findings import gigabytes
from pggrpo_cli.planning.sweep_findings import disk_peak, needs_of, sweep_findings, sweep_fits
from pggrpo_cli.planning.sweep_plan import Kind, SweepPlan
from pggrpo_cli.printable import one_line
from pggrpo_cli.sweep.words import shortened

LISTED = 20
"""Kinds of jobs, and values of a key, at most."""
NARROW = 72
"""Columns below which the jobs are no table."""


def show(plan: SweepPlan) -> None:
    print_parts(_parts(plan))


def as_json(plan: SweepPlan) -> str:
    """One object, sizes in bytes; ASCII, so that nothing in it can steer a terminal."""
    values = {
        "ok": sweep_fits(plan),
        "place": str(plan.found.place),
        "jobs": plan.jobs,
        "searches": plan.found.searches,
        "swept": plan.found.swept,
        "turns": asdict(plan.found.turns),
        "steps": plan.total("steps"),
        "updates": plan.total("updates"),
        "completions": plan.total_of_steps("completions_per_step"),
        "tokens": plan.total_of_steps("tokens_per_step"),
        "memory": [
            {"device": one.device, "jobs": one.at_a_time, "needed": one.needed, "free": one.free, "total": one.total}
            for one in needs_of(plan)
        ],
        "disk": disk_peak(plan),
        "kinds": [{"jobs": list(one.numbers), "words": one.words, "plan": outcome(one.plan)} for one in plan.kinds],
        "findings": [asdict(one) for one in sweep_findings(plan)],
    }
    return json.dumps(values, indent=1)


def _parts(plan: SweepPlan) -> Iterator[RenderableType]:
    jobs = "1 job" if plan.jobs == 1 else f"{'up to ' if plan.found.searches else ''}{plan.jobs} jobs"
    yield Text(one_line(f"sweep of {jobs} in {plan.found.place}"), style="bold")
    yield table_of(
        {key: one_line(_values(values)) for key, values in plan.found.swept.items()} | {"at a time": _turns(plan)}
    )
    yield Text("\na job" if len(plan.kinds) == 1 else "\njobs", style="bold")
    yield _Jobs(plan)
    yield Text("\nall of them", style="bold")
    yield table_of(_all(plan))
    if plan.found.searches:
        yield Text(
            "\nnote: a search chooses as it goes; a job is foreseen with what the configuration says of the keys above"
        )
    yield Text("")
    yield from verdict(sweep_findings(plan))


def _values(values: Sequence[str]) -> str:
    more = f", … {len(values)} in all" if len(values) > LISTED else ""
    return ", ".join(shortened(values[:LISTED])) + more


def _turns(plan: SweepPlan) -> str:
    turns = plan.found.turns
    threads = "" if turns.threads is None else f", {turns.threads} thread{'s' if turns.threads > 1 else ''} each"
    gpus = f", on GPUs {', '.join(turns.gpus)}" if turns.gpus else ""
    where = {"processes": "", "joblib": ", by joblib", "basic": ", in one process", "elsewhere": ", elsewhere"}
    return f"{turns.at_a_time}{threads}{gpus}{where[turns.launcher]}"


class _Jobs:
    """A line for those that differ in nothing but numbers that change no size; where there is no room, a few."""

    def __init__(self, plan: SweepPlan) -> None:
        self._plan = plan

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        kinds = self._plan.kinds[:LISTED]
        rest = self._plan.kinds[LISTED:]
        if options.max_width < NARROW:
            for one in kinds:
                yield Text(one_line(one.words))
                yield table_of(_cells(one))
        else:
            yield self._table(kinds)
        if rest:
            yield Text(f"  and {sum(len(one.numbers) for one in rest):,} jobs of {len(rest):,} more kinds")

    def _table(self, kinds: Sequence[Kind]) -> Table:
        table = Table.grid(padding=(0, 2, 0, 0))
        for name in _cells(kinds[0]):
            table.add_column(Text(f"  {name}" if name == "jobs" else name, "cyan"), justify="right", no_wrap=True)
        table.add_column(overflow="fold")
        table.show_header = True
        for one in kinds:
            table.add_row(*_cells(one).values(), Text(one_line(one.words)))
        return table


def _cells(kind: Kind) -> dict[str, str]:
    counts = kind.plan.counts
    return {
        "jobs": f"{len(kind.numbers):,}",
        "steps": f"{counts.steps:,}",
        "tokens a step": f"{'≤' if counts.samples else '~'}{counts.tokens_per_step:,}",
        "memory": gigabytes(kind.plan.memory.peak),
        "a checkpoint": gigabytes(kind.plan.disk.checkpoint),
    }


def _all(plan: SweepPlan) -> dict[str, str]:
    steps = {one.plan.counts.steps for one in plan.kinds}
    product = f": {plan.jobs:,} jobs × {steps.pop():,}" if len(steps) == 1 and plan.jobs > 1 else ""
    return {
        "steps": f"{plan.total('steps'):,}{product}",
        "updates": f"{plan.total('updates'):,}",
        "completions": f"{plan.total_of_steps('completions_per_step'):,}",
        "tokens": f"at most {plan.total_of_steps('tokens_per_step'):,}",
        "disk": f"{gigabytes(disk_peak(plan))} at the end, at most",
    }
