"""pggrpo eval: measure a run, a checkpoint or a model on held-out prompts: pggrpo eval RUN [key=value …]."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pggrpo_cli.errors import UsageError
from pggrpo_cli.options import Options

if TYPE_CHECKING:
    from pggrpo_cli.measuring import Report

HELP = """\
usage: pggrpo eval RUN|CHECKPOINT|MODEL [key=value …] [options]

Greedy and sampled completions of held-out prompts: mean rewards with bootstrap intervals, pass@k without bias, and the
difference to the model that the run began with, prompt by prompt. MODEL is a folder, a .gguf file, a hub id, or a name
of the group model. Data, rewards and sampler are the run's (for a model those of pggrpo train); key=value changes
them, data=… and reward=… too.

  --checkpoint C     of a run: best (the default, if one was kept), last, or step-N
  --samples N        sampled completions a prompt (8; 0: greedy only)
  --k K,…            of pass@k (1,2,4,… up to the samples)
  --solved-at R      the reward from which a completion counts as right for pass@k (1)
  --prompts N        at most so many prompts (all)
  --split S          evaluation (held out, the default) or train
  --by COLUMN        the same numbers for each value of a column of the data
  --base MODEL|none  what to compare with (what the run began with)
  --confidence C     of the intervals (0.95)
  -o FILE            everything as JSON, with each completion and its rewards
  --json             the numbers as JSON instead of the table
  -cd DIR            groups of your own, as for pggrpo train

examples:
  pggrpo eval outputs/2026-11-23/12-00-00-train-1a2b3c
  pggrpo eval outputs/2026-11-23/12-00-00-train-1a2b3c data=jsonl data.path=test.jsonl data.eval_size=100 --samples 16
  pggrpo eval smollm2_135m reward=[exact_answer,format] --by task
"""


def main(arguments: list[str]) -> int:
    if not arguments or set(arguments) & {"-h", "--help"}:
        print(HELP, end="")
        return 0 if arguments else 2
    options = Options("eval")
    options.add_argument("subject", metavar="RUN|CHECKPOINT|MODEL")
    options.add_argument("overrides", nargs="*", metavar="key=value")
    options.add_argument("--checkpoint")
    options.add_argument("--samples", type=int, default=8)
    options.add_argument("--k")
    options.add_argument("--solved-at", type=float, default=1.0)
    options.add_argument("--prompts", type=int)
    options.add_argument("--split", choices=("evaluation", "train"), default="evaluation")
    options.add_argument("--by")
    options.add_argument("--base")
    options.add_argument("--confidence", type=float, default=0.95)
    options.add_argument("-o", "--output", type=Path)
    options.add_argument("--json", action="store_true")
    options.add_argument("-cd", "--config-dir")
    given = options.parse_intermixed_args(arguments)
    _refuse_odd_values(given)
    from pggrpo_cli.subject import find_subject

    subject = find_subject(given.subject, given.overrides, given.checkpoint, given.config_dir)
    if sys.stderr.isatty():
        print("loading torch …", end="\r", file=sys.stderr, flush=True)
    from pggrpo_cli.measuring import Wishes, measure

    wishes = Wishes(
        samples=given.samples,
        ks=_ks(given.k, given.samples),
        solved_at=given.solved_at,
        prompts=given.prompts,
        split=given.split,
        by=given.by,
        base=given.base,
        confidence=given.confidence,
    )
    report = measure(subject, wishes, _say)
    if given.output is not None:
        from pggrpo_cli.whole_file import write_whole

        write_whole(given.output, json.dumps(report.as_json(completions=True), indent=1, ensure_ascii=False) + "\n")
    if given.json:
        print(json.dumps(report.as_json(completions=False), indent=1, ensure_ascii=False))
    else:
        show(report)
    return 0


def _refuse_odd_values(given: Any) -> None:
    if given.samples < 0:
        raise UsageError(f"`--samples`: {given.samples} is less than 0.")
    if not 0 < given.confidence < 1:
        raise UsageError(f"`--confidence`: {given.confidence} is not between 0 and 1; 0.95 is usual.")
    if given.prompts is not None and given.prompts < 1:
        raise UsageError(f"`--prompts`: {given.prompts} leaves nothing to measure; give 1 or more.")
    if given.output is not None and not given.output.absolute().parent.is_dir():
        raise UsageError(f"`-o`: there is no folder {given.output.absolute().parent}.")


def _ks(text: str | None, samples: int) -> tuple[int, ...]:
    if text is None:
        return tuple(2**power for power in range(max(samples, 1).bit_length()) if 2**power <= samples)
    try:
        ks = tuple(int(one) for one in text.split(","))
    except ValueError:
        raise UsageError(f"`--k`: {text!r} is no list of numbers such as 1,4,8.") from None
    if min(ks) < 1 or max(ks) > samples:
        raise UsageError(f"`--k`: {text} needs numbers from 1 to --samples, which is {samples}.")
    return ks


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def show(report: Report) -> None:
    """The tables, in the terminal's width."""
    from rich.console import Console

    console = Console(soft_wrap=False)
    console.print(_table(f"{report.prompts} prompts", report.numbers, report.difference))
    for key, numbers in report.by_part.items():
        console.print(_table(f"{report.by}: {key}", numbers, {}))
    console.print(f"\\[low, high]: {report.confidence:.0%} bootstrap intervals over prompts")


def _table(title: str, numbers: Mapping[str, Mapping[str, Any]], difference: Mapping[str, Any]) -> Any:
    """A row a number, a column a model."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from pggrpo_cli.printable import one_line

    table = Table(title=Text(one_line(title)), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for label in numbers:
        table.add_column(Text(one_line(label)), justify="right")
    if difference:
        table.add_column("difference", justify="right")
    for name in dict.fromkeys(name for column in numbers.values() for name in column):
        cells = [_cell(column.get(name)) for column in numbers.values()]
        table.add_row(Text(one_line(name)), *cells, *([_cell(difference.get(name), signed=True)] if difference else []))
    return table


def _cell(interval: Any, *, signed: bool = False) -> str:
    if interval is None:
        return ""
    sign = "+" if signed else ""
    return f"{interval.mean:{sign}.3g} \\[{interval.low:{sign}.3g}, {interval.high:{sign}.3g}]"
