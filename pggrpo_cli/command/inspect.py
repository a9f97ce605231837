"""pggrpo inspect: one step token by token, before and after its update: pggrpo inspect RUN --step N [--prompt K]."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pggrpo_cli.errors import UsageError
from pggrpo_cli.options import Options

if TYPE_CHECKING:
    from pggrpo_cli.inspection import Inspected, Inspection
    from pggrpo_cli.report.run import Run
    from pggrpo_cli.report.samples_file import Completion

HELP = """\
usage: pggrpo inspect RUN --step N [--prompt K] [--config-dir DIR] [security.allow_targets=[prefix,…]]

The completions of the K-th prompt (0: the first) of step N, token by token: log π under the policy before the step (old), after
it (new) and before training (reference), the ratio of a token exp(new − old), and what the run's loss makes of it: the ratio
of the completion, and whether the clip holds it. Old is what the sampler noted in samples.jsonl. Loads the model and needs
the checkpoint of the step, or the nearest after it. Of a run of an earlier release the texts are tokenised again and old is of
the nearest checkpoint before; what that and the checkpoints leave open is said.
The run's model and loss are made again; where these are classes of yours, in this folder or in DIR, security.allow_targets
must list them, as for pggrpo resume.

example: pggrpo inspect outputs/2026-11-23/12-00-00-train-1a2b3c --step 8 --prompt 2
"""


def main(arguments: list[str]) -> int:
    if not arguments or any(word in ("-h", "--help") for word in arguments):
        print(HELP, end="")
        return 0 if arguments else 2
    options = _parse(arguments)
    from pggrpo_cli.report.places import find_runs
    from pggrpo_cli.report.run import read_run

    paths = find_runs([options.run], "inspect")
    if len(paths) > 1:
        raise UsageError(f"{options.run} holds {len(paths)} runs; one is inspected at a time, such as {paths[-1]}.")
    run = read_run(paths[0], paths[0].name)
    if not run.config:
        raise UsageError(f"{run.path}: {run.problems[0]}")
    chosen = _chosen(run, options.step, options.prompt)
    allow_targets = _allowed(options.overrides)
    folders = [os.getcwd(), *([] if options.config_dir is None else [os.path.abspath(options.config_dir)])]
    sys.path += [folder for folder in folders if folder not in sys.path]
    from pggrpo_cli.inspection import inspect_step

    _show(inspect_step(run, options.step, chosen, allow_targets), options.step)
    return 0


def _allowed(overrides: Sequence[str]) -> list[str]:
    """What security.allow_targets lists; no other key means anything here."""
    from pggrpo_cli.run_overrides import parse_overrides

    changes = parse_overrides(overrides)
    listed = changes.pop("security.allow_targets", [])
    if changes:
        raise UsageError(
            f"`{next(iter(changes))}`: pggrpo inspect changes no key but security.allow_targets=[prefix,…]."
        )
    if not (isinstance(listed, list) and all(isinstance(one, str) for one in listed)):
        raise UsageError("`security.allow_targets`: is a list of text; write security.allow_targets=[first,second].")
    return listed


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = Options("inspect")
    parser.add_argument("run")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--step", type=int, required=True)
    parser.add_argument("--prompt", type=int, default=0)
    parser.add_argument("-cd", "--config-dir")
    return parser.parse_intermixed_args(arguments)


def _chosen(run: Run, step: int, prompt: int) -> list[Completion]:
    """The completions of one prompt of the step."""
    completions = run.samples.read(step, held_out=False)
    if not completions:
        there = run.samples.steps(held_out=False)
        span = f"it has those of steps {there[0]} to {there[-1]}" if there else "it has none at all"
        raise UsageError(f"`--step`: samples.jsonl has no completions of step {step}; {span}.")
    prompts = list(dict.fromkeys(one.prompt_index for one in completions))
    if not 0 <= prompt < len(prompts):
        raise UsageError(
            f"`--prompt`: {prompt} is not there; step {step} has {len(prompts)} prompts, 0 to {len(prompts) - 1}."
        )
    return [one for one in completions if one.prompt_index == prompts[prompt]]


def _show(found: Inspection, step: int) -> None:
    from pggrpo_cli.display.run_view import number
    from pggrpo_cli.printable import one_line

    print(f"step {step}: old is {found.old}, new is {found.new}")
    for words in found.notes:
        print(f"note: {words}")
    print(f"prompt: {one_line(found.completions[0].completion.prompt)}")
    for one in found.completions:
        of = one.completion
        print(f"\ncompletion {of.sample}: reward {number(of.reward)}, advantage {number(of.advantage)}, {_under(one)}")
        _tokens(one)


def _under(one: Inspected) -> str:
    from pggrpo_cli.display.run_view import number, percent

    if one.ratio is None:
        return "no ratio under this loss"
    clip = {None: "", 0.0: ", not clipped", 1.0: ", clipped"}.get(one.clipped, f", {percent(one.clipped)} clipped")
    return f"ratio {number(one.ratio)}{clip}"


def _tokens(one: Inspected) -> None:
    from rich.cells import cell_len, set_cell_size

    from pggrpo_cli.report.visible import visible

    shown = [visible(token).replace("\n", "⏎").replace("\t", "⇥") for token in one.tokens]
    width = min(max(5, *(cell_len(token) for token in shown)), 20)
    reference = ["–"] * len(shown) if one.reference is None else [f"{value:.3f}" for value in one.reference]
    print(f"  {'token':<{width}} {'old':>9} {'new':>9} {'reference':>9} {'ratio':>9}")
    for token, old, new, ref in zip(shown, one.old, one.new, reference, strict=True):
        ratio = math.exp(min(new - old, 20.0))
        print(f"  {set_cell_size(token, width)} {old:>9.3f} {new:>9.3f} {ref:>9} {ratio:>9.4f}")
    total = "–" if one.reference is None else f"{sum(one.reference):.3f}"
    print(f"  {'sum':<{width}} {sum(one.old):>9.3f} {sum(one.new):>9.3f} {total:>9}")
