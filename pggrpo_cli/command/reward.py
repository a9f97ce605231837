"""pggrpo reward: try the rewards of a configuration on completions, without a model: pggrpo reward test [key=value …]."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pggrpo_cli.errors import UsageError, UserCodeError
from pggrpo_cli.options import Options
from pggrpo_cli.suggestions import did_you_mean

if TYPE_CHECKING:
    from pggrpo_cli.config import TrainConfig
    from pggrpo_cli.scoring.scorer import ScoredSamples
    from pggrpo_cli.scoring.trial import Trials
    from pggrpo_cli.scoring.trial_report import Outcome

HELP = """\
usage: pggrpo reward test [key=value …] [options]

Runs the rewards of a training configuration on completions, without a model, and shows each score, its weighted value,
errors and time. Keys are those of pggrpo train. Completions come from

  --completions FILE   a JSON-lines file of {"completion": …}; `prompt` or `row` (a number) says what is answered, further
                       keys are columns; or samples.jsonl of a run, to score it again: the data is then the run's own
  --completion TEXT    here, for the row --row; several times for several
  (typed)              on a terminal, for the row --row
  (nothing)            the data set: its own completions, or made-up ones

options:
  --row N              the row of the data set, counted from 0
  --rows N             at most so many rows, or lines of the file (4 rows; all lines)
  --advantages         also the advantage of each completion in its group (loads torch)
  --json               an object a completion instead of the table
  -cd, --config-dir D  groups of your own, as for pggrpo train

No tokenizer is loaded: completion_ids, if the file has none, are the bytes of the text.
Exit code 2 if a training would have ended: a reward with on_error=raise failed, or too many completions did.

examples:
  pggrpo reward test reward=python reward.python.path=mine.py reward.python.name=score
  pggrpo reward test reward=[exact_answer,format] --completion 4 --completion "The answer is 5"
  pggrpo reward test reward=math_verify --completions outputs/2026-11-23/12-00-00-train-1a2b3c/samples.jsonl
"""
ROWS = 4
"""Of the data set, if nobody says how many."""


def main(arguments: list[str]) -> int:
    if (
        not arguments
        or arguments[0] in ("-h", "--help")
        or (arguments[0] == "test" and {"-h", "--help"} & set(arguments))
    ):
        print(HELP, end="")
        return 0 if arguments else 2
    if arguments[0] != "test":
        raise UsageError(
            f"`{arguments[0]}`: pggrpo reward has no such command.{did_you_mean(arguments[0], ['test'])} There is: "
            "pggrpo reward test [key=value …]."
        )
    test(_parse(arguments[1:]))
    return 0


def test(options: argparse.Namespace) -> None:
    """Scores and prints. Raises UserCodeError at the end if a training would have ended."""
    from pggrpo_cli.scoring.scorer import open_scorer
    from pggrpo_cli.scoring.trial_report import Outcome
    from pggrpo_cli.types import RewardContext

    config = _config(options)
    trials = _trials(options, config)
    device = "cpu" if config.device == "auto" else config.device
    context = RewardContext(run_dir=None, device=device, seed=config.seed)
    # What a reward in this process prints must not stand between the objects.
    aside = contextlib.redirect_stdout(sys.stderr) if options.json else contextlib.nullcontext()
    with aside, open_scorer(_forgiving(config), context) as scorer:
        scored = scorer.score(trials.samples)
        notes, printed, weights = scorer.notes, scorer.printed, scorer.weights
    advantages = None
    if options.advantages:
        advantages = _advantages(config, trials, scored, weights)
    outcome = Outcome(trials=trials, scored=scored, weights=weights, advantages=advantages)
    if options.json:
        _print_objects(outcome)
    else:
        _print_table(outcome, notes, printed)
    _refuse_failures(config, outcome)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = Options("reward test")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--completions")
    parser.add_argument("--completion", action="append")
    parser.add_argument("--row", type=int)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--advantages", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("-cd", "--config-dir")
    options = parser.parse_intermixed_args(arguments)
    if options.completions is not None and options.completion is not None:
        raise UsageError("--completions and --completion: completions come from a file or from here, not from both.")
    if options.row is not None and options.row < 0:
        raise UsageError(f"--row: {options.row} is no row; rows are counted from 0.")
    if options.rows is not None and options.rows < 1:
        raise UsageError(f"--rows: {options.rows} is not ≥ 1.")
    if options.completion is not None and options.rows is not None:
        raise UsageError("--rows: the completions given here are for one row, which --row says.")
    return options


def _config(options: argparse.Namespace) -> TrainConfig:
    """Composed and checked as for a training; a run's samples bring its data, unless the line says otherwise."""
    from pggrpo_cli import config as schema
    from pggrpo_cli.check import check_foreign_targets, check_values
    from pggrpo_cli.composing import compose
    from pggrpo_cli.scoring.trial import run_of

    values = schema.plain(compose("train", options.overrides, options.config_dir))
    run = None if options.completions is None else run_of(options.completions)
    typed = {word.lstrip("+~").partition("=")[0].partition(".")[0].partition("@")[0] for word in options.overrides}
    if run is not None and not typed & {"data", "seed", "experiment", "debug"}:
        values |= _data_of(run, values["security"]["allow_targets"])
    check_values(values)
    config = schema.build(values)
    check_foreign_targets(config, ("data", "reward"))
    return config


def _data_of(run: Any, allow_targets: Sequence[str]) -> dict[str, Any]:
    """`data` and `seed` of a run. Raises ConfigError if they would run code that is not pggrpo's own."""
    from pggrpo_cli.run_directory import read_config
    from pggrpo_cli.run_overrides import refuse_targets

    saved = read_config(run)
    found: dict[str, Any] = {key: saved[key] for key in ("data", "seed") if key in saved}
    refuse_targets(found, allow_targets, typed=())
    return found


def _trials(options: argparse.Namespace, config: TrainConfig) -> Trials:
    from pggrpo_cli.scoring.trial import Rows, of_data, of_file, of_texts, typed_in

    rows = Rows(config)
    if options.completions is not None:
        return of_file(options.completions, rows, options.row or 0, options.rows)
    if options.completion is not None:
        return of_texts(options.completion, rows.get(options.row or 0, "`--row`"), "given on the command line")
    if sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty() and not options.json and not options.rows:
        row = rows.get(options.row or 0, "`--row`")
        texts = typed_in(row, input, print)
        if texts:
            return of_texts(texts, row, "typed")
    count = options.rows or (ROWS if options.row is None else 1)
    return of_data(rows.some(options.row or 0, count))


def _forgiving(config: TrainConfig) -> TrainConfig:
    """The same rewards, but one that fails does not hide what the others say."""
    from pggrpo_cli.scoring.scorer import reward_settings

    rewards = {
        name: node | {"on_error": "skip"} if reward_settings(config, name).on_error == "raise" else node
        for name, node in config.reward.items()
    }
    return replace(config, reward=rewards, scoring=replace(config.scoring, max_error_share=1.0))


def _advantages(config: TrainConfig, trials: Trials, scored: ScoredSamples, weights: dict[str, float]) -> list[float]:
    from pggrpo_cli.check import check_foreign_targets
    from pggrpo_cli.instantiate import component
    from pggrpo_cli.rollouts import advantages_of

    check_foreign_targets(config, ("advantage",))
    groups = [sample.group for sample in trials.samples]
    return advantages_of(scored, weights, component(config.advantage, "advantage"), groups)


def _print_objects(outcome: Outcome) -> None:
    from pggrpo_cli.recorder import finite
    from pggrpo_cli.scoring.trial_report import as_records

    for record in as_records(outcome):
        print(json.dumps(finite(record), allow_nan=False, default=str))


def _print_table(outcome: Outcome, notes: Sequence[str], printed: str) -> None:
    """Captured first: whoever reads may go away, or speak another alphabet."""
    import rich.console

    from pggrpo_cli.printable import printable
    from pggrpo_cli.scoring.trial_report import PRINTED, show, summary

    console = rich.console.Console(highlight=False, markup=False, emoji=False, legacy_windows=False)
    with console.capture() as captured:
        show(outcome, console)
        console.print()
        for line in [*summary(outcome), *notes]:
            console.print(printable(line))
        if printed.strip():
            left_out = len(printed) - PRINTED
            console.print("printed by the rewards:", style="dim")
            console.print(printable(printed[:PRINTED].rstrip()), soft_wrap=True)
            if left_out > 0:
                console.print(f"… and {left_out} characters more", style="dim")
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    text = "\n".join(line.rstrip() for line in captured.get().split("\n"))
    print(text.encode(encoding, "replace").decode(encoding), end="", flush=True)


def _refuse_failures(config: TrainConfig, outcome: Outcome) -> None:
    problems = list(_ends_a_training(config, outcome))
    if problems:
        raise UserCodeError("\n".join(problems))


def _ends_a_training(config: TrainConfig, outcome: Outcome) -> Iterator[str]:
    from pggrpo_cli.scoring.scorer import reward_settings

    for name, failed in outcome.scored.failures.items():
        asked = sum(term is not None or index in failed for index, term in enumerate(outcome.scored.terms[name]))
        share = config.scoring.max_error_share
        if failed and reward_settings(config, name).on_error == "raise":
            yield (
                f"`reward.{name}`: could not score {len(failed)} of {asked} completions, and one is enough to end a "
                f"training. Mend it, or say what a failure is worth: reward.{name}.on_error=skip, or a number."
            )
        elif len(failed) > share * asked:
            yield (
                f"`reward.{name}`: could not score {len(failed)} of {asked} completions, which ends a training: "
                f"scoring.max_error_share is {share:g}."
            )
