"""The plan of a run for a terminal or a pipe, in tables as wide as there is room."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from pggrpo_cli.findings import Finding
from pggrpo_cli.planning.plan_findings import fits, gigabytes, plan_findings
from pggrpo_cli.planning.run_plan import RunPlan
from pggrpo_cli.printable import one_line

if TYPE_CHECKING:
    from pggrpo_cli.planning.probe import TimeEstimate

WIDTH_OF_A_PIPE = 100
STYLES = {"ok": "green", "warning": "yellow", "trouble": "red"}
MARKS = {"ok": "✓", "warning": "!", "trouble": "✗"}


def show(plan: RunPlan, time: TimeEstimate | None) -> None:
    print_parts(_parts(plan, time))


def print_parts(parts: Iterable[RenderableType]) -> None:
    """On stdout; a character that stdout does not know becomes a question mark."""
    tty = sys.stdout.isatty()
    width = shutil.get_terminal_size((WIDTH_OF_A_PIPE, 24)).columns if tty else WIDTH_OF_A_PIPE
    buffer = io.StringIO()
    plain = not tty or "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
    console = Console(
        file=buffer, width=width, force_terminal=tty and not plain, no_color=plain, markup=False, highlight=False,
        emoji=False,
    )  # fmt: skip
    for part in parts:
        console.print(part)
    encoding = sys.stdout.encoding or "utf-8"
    text = "\n".join(line.rstrip() for line in buffer.getvalue().split("\n"))
    print(text.encode(encoding, "replace").decode(encoding), end="")


def as_json(plan: RunPlan, time: TimeEstimate | None) -> str:
    """One object, sizes in bytes and times in seconds; ASCII, so that nothing in it can steer a terminal."""
    return json.dumps(outcome(plan) | {"time": None if time is None else time.values()}, indent=1)


def outcome(plan: RunPlan) -> dict[str, Any]:
    """For programs."""
    memory = {
        "peak": plan.memory.peak,
        "peak_phase": plan.memory.peak_phase,
        "phases": {phase: dict(parts) for phase, parts in plan.memory.phases.items()},
        "other_processes": plan.beside,
        "free": plan.memory_free,
        "total": plan.memory_total,
    }
    return {
        "ok": fits(plan),
        "model": {"name": plan.model, "computes": plan.computes, **asdict(plan.shape)},
        "counts": asdict(plan.counts),
        "lengths": {
            name: value
            for name, value in asdict(plan.lengths).items()
            if name not in ("longest_prompts", "largest_rows")
        },
        "memory": memory,
        "disk": {**asdict(plan.disk), "peak": plan.disk.peak, "free": plan.disk_free, "place": str(plan.place)},
        "findings": [asdict(one) for one in plan_findings(plan)],
        "notes": plan.notes,
    }


def _parts(plan: RunPlan, time: TimeEstimate | None) -> Iterator[RenderableType]:
    yield Text(one_line(f"model {plan.model}"), style="bold")
    yield table_of(_model(plan))
    yield Text("\nsteps and updates", style="bold")
    yield table_of(_counts(plan))
    yield Text(f"\nmemory at its peak, the {plan.memory.peak_phase} phase", style="bold")
    yield _sizes({**plan.memory.parts, "together": plan.memory.peak})
    yield Text("\nmemory by phase", style="bold")
    yield _sizes({phase: sum(parts.values()) for phase, parts in plan.memory.phases.items()} | plan.beside)
    yield Text("\ndisk", style="bold")
    yield table_of(_disk(plan))
    if time is not None:
        yield Text("\ntime", style="bold")
        yield table_of(time.rows())
    if plan.notes:
        yield Text("")
        for note in plan.notes:
            yield Text(one_line(note))
    yield Text("")
    yield from verdict(plan_findings(plan))


def verdict(findings: Iterable[Finding]) -> Iterator[RenderableType]:
    for one in findings:
        yield _marked(Text(MARKS[one.status], STYLES[one.status]), f"{one.name}: {one.says}")
        if one.advice:
            yield _marked(Text(""), f"→ {one.advice}")


def _marked(mark: Text, words: str) -> Table:
    """Continued lines are set in behind the mark."""
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(width=1)
    table.add_column(overflow="fold")
    table.add_row(mark, words)
    return table


def _model(plan: RunPlan) -> dict[str, str]:
    shape = plan.shape
    count = shape.parameters
    size = f"{count / 1e9:.2f}B" if count >= 1e9 else f"{count / 1e6:.1f}M" if count >= 1e6 else f"{count / 1e3:.1f}K"
    context = "not known" if shape.context >= 1 << 30 else f"{shape.context:,} tokens"
    return {
        "parameters": f"{size} ({count:,})",
        "shape": f"{shape.layers} layers, width {shape.hidden:,}, vocabulary {shape.vocabulary:,}",
        "context": context,
        "computes": plan.computes,
    }


def _counts(plan: RunPlan) -> dict[str, str]:
    counts, lengths = plan.counts, plan.lengths
    at_most = "at most " if counts.samples else "about "
    warmup = "" if counts.warmup_updates is None else f", of them {counts.warmup_updates:,} warm-up"
    evaluations = (
        f"{counts.evaluated_prompts:,} prompts at steps {_steps_in_words(counts.evaluations)}"
        if counts.evaluations
        else "none"
    )
    return {
        "a step": f"{counts.prompts_per_step:,} prompts × {counts.group_size:,} completions = "
        f"{counts.completions_per_step:,}",
        "prompt": f"{lengths.mean_prompt:,.0f} tokens on average, {lengths.longest_prompt:,} the longest",
        "completion": f"{at_most}{counts.completion_tokens:,} tokens",
        "tokens a step": f"{at_most}{counts.tokens_per_step:,}, each prompt once",
        "updates a step": f"{counts.updates_per_step:,} "
        f"({counts.updates_per_step // counts.minibatches} × {counts.minibatches} minibatches)",
        "an update": f"at most {counts.micro_batches:,} micro-batch{'es' if counts.micro_batches > 1 else ''} "
        f"of up to {counts.micro_batch_tokens:,} tokens",
        "steps": f"{counts.steps:,}; updates {counts.updates:,}{warmup}",
        "prompts in all": f"{counts.steps * counts.prompts_per_step:,} of {counts.rows:,} rows: {counts.epochs:.2f} epochs",
        "evaluations": evaluations,
        "checkpoints": f"at steps {_steps_in_words(counts.checkpoints)}; at most {counts.kept} kept",
    }


def _steps_in_words(steps: Sequence[int]) -> str:
    """ "8, 16, 24", or the first and the last of many."""
    if len(steps) <= 6:
        return ", ".join(map(str, steps))
    return f"{', '.join(map(str, steps[:3]))}, … {steps[-1]}"


def _disk(plan: RunPlan) -> dict[str, str]:
    disk = plan.disk
    return {
        "a checkpoint": gigabytes(disk.checkpoint),
        "checkpoints": f"{gigabytes(disk.at_once)} at once: those kept, and one being written",
        "metrics, samples": f"{gigabytes(disk.lines)} at the end, at most",
        "in": one_line(str(plan.place)),
    }


def table_of(rows: dict[str, str]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(f"  {name}", value)
    return table


def _sizes(sizes: dict[str, int]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="cyan")
    table.add_column(justify="right", no_wrap=True)
    for name, size in sizes.items():
        table.add_row(f"  {name}", gigabytes(size))
    return table
