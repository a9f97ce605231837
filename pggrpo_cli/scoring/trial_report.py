"""What a trial of rewards came to: a table for people, an object a completion for programs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pggrpo_cli.printable import one_line, printable
from pggrpo_cli.scoring.scorer import ScoredSamples
from pggrpo_cli.scoring.trial import Trials, text_of

if TYPE_CHECKING:
    from rich.console import Console

SHOWN = 32
"""Completions in the table; --json has all of them."""
PRINTED = 2000
"""Characters of what the rewards print."""
NARROW_COMPLETION = 16
"""Columns that a completion needs at least; with less a list is more readable than a table."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """B completions scored."""

    trials: Trials
    scored: ScoredSamples
    weights: Mapping[str, float]
    advantages: Sequence[float] | None
    """[B]"""

    def weighted(self, name: str, index: int) -> float | None:
        value = self.scored.values[name][index]
        return None if value is None else self.weights[name] * value

    def mean(self, name: str) -> float | None:
        """Of the scores as the reward gave them."""
        return _mean([value for value in self.scored.terms[name] if value is not None])


def as_records(outcome: Outcome) -> Iterator[dict[str, Any]]:
    """A flat object for each completion, in their order."""
    scored = outcome.scored
    for index, trial in enumerate(outcome.trials.trials):
        record: dict[str, Any] = {
            "row": trial.label,
            "group": trial.sample.group,
            "prompt": trial.sample.prompt,
            "completion": trial.sample.completion,
            "reward": scored.rewards[index],
            "reward_terms": {name: terms[index] for name, terms in scored.terms.items()},
            "weighted": {name: outcome.weighted(name, index) for name in scored.terms},
            "errors": {name: failed[index].message for name, failed in scored.failures.items() if index in failed},
        }
        if trial.line:
            record["line"] = trial.line
        if trial.recorded is not None:
            record["recorded_reward"] = trial.recorded
        if outcome.advantages is not None:
            record["advantage"] = outcome.advantages[index]
        extra = {name: values[index] for name, values in scored.columns.items() if values[index] is not None}
        yield record | ({"extra": extra} if extra else {})


def show(outcome: Outcome, console: Console) -> None:
    """Completions with their scores, and the first traceback of each reward that failed."""
    from rich.text import Text

    console.print(Text(printable(outcome.trials.origin)), style="bold")
    if len({sample.group for sample in outcome.trials.samples}) == 1:
        asked = one_line(text_of(outcome.trials.samples[0].prompt))
        console.print(Text(f"prompt: {asked}"), no_wrap=True, overflow="ellipsis")
    columns = _columns(outcome)
    widths = [max(len(header), *(len(cell(index)) for index in _shown(outcome))) + 3 for header, cell in columns]
    if console.width - sum(widths) < NARROW_COMPLETION:
        _list(outcome, columns, console)
    else:
        _table(outcome, columns, console)
    left_out = len(outcome.trials.trials) - len(_shown(outcome))
    if left_out:
        console.print(f"… and {left_out} more; --json prints all of them.", style="dim")
    _failures(outcome, console)


def summary(outcome: Outcome) -> list[str]:
    """Means, errors and time, a line a reward, and of the sum."""
    lines = [_of_reward(outcome, name) for name in outcome.scored.terms]
    rewards = [reward for reward in outcome.scored.rewards if not math.isnan(reward)]
    missing = len(outcome.scored.rewards) - len(rewards)
    if rewards:
        words = f"reward: mean {_number(_mean(rewards))}, from {_number(min(rewards))} to {_number(max(rewards))}"
        lines.append(words + (f"; {missing} have none" if missing else ""))
    recorded = [trial.recorded for trial in outcome.trials.trials if trial.recorded is not None]
    if recorded:
        lines.append(f"the run gave {_number(_mean(recorded))} on average (column “was”)")
    if outcome.advantages is not None:
        by_group: dict[int, list[float]] = {}
        for trial, advantage in zip(outcome.trials.trials, outcome.advantages, strict=True):
            by_group.setdefault(trial.sample.group, []).append(advantage)
        silent = sum(not any(values) for values in by_group.values())
        lines.append(
            f"advantages: {len(by_group)} groups; those in which all rewards are equal teach nothing: {silent}"
        )
    lines += [f"logged: {name} {_number(value)}" for name, value in outcome.scored.metrics.items()]
    if outcome.scored.columns:
        lines.append(f"said beside the scores, shown by --json: {', '.join(outcome.scored.columns)}")
    return lines


Column = tuple[str, Callable[[int], str]]


def _columns(outcome: Outcome) -> list[Column]:
    """Header and cell of every column but the completion's."""
    trials, scored = outcome.trials.trials, outcome.scored
    columns: list[Column] = [("row", lambda index: trials[index].label)]
    for name in scored.terms:
        weight = outcome.weights[name]
        header = name if weight == 1 else f"{name} ×{weight:g}"
        columns.append((header, lambda index, name=name: _cell(outcome, name, index)))  # type: ignore[misc]
    columns.append(("reward", lambda index: _number(scored.rewards[index])))
    if any(trial.recorded is not None for trial in trials):
        columns.append(("was", lambda index: _number(trials[index].recorded)))
    if (advantages := outcome.advantages) is not None:
        columns.append(("advantage", lambda index: _number(advantages[index])))
    return columns


def _cell(outcome: Outcome, name: str, index: int) -> str:
    """The score; where it differs, also what it adds to the sum."""
    term, weighted = outcome.scored.terms[name][index], outcome.weighted(name, index)
    if index in outcome.scored.failures[name]:
        return "error" if weighted is None else f"error → {_number(weighted)}"
    if term is None or weighted is None:
        return "–"
    return _number(term) if math.isclose(term, weighted, rel_tol=1e-9) else f"{_number(term)} → {_number(weighted)}"


def _shown(outcome: Outcome) -> range:
    return range(min(SHOWN, len(outcome.trials.trials)))


def _said(outcome: Outcome, index: int) -> str:
    return one_line(outcome.trials.trials[index].sample.completion) or "(nothing)"


def _table(outcome: Outcome, columns: Sequence[Column], console: Console) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, expand=True)
    (first, label), *others = columns
    table.add_column(first)
    table.add_column("completion", ratio=1, no_wrap=True, overflow="ellipsis")
    for header, _ in others:
        table.add_column(Text(header), justify="right", no_wrap=True)
    trials = outcome.trials.trials
    for index in _shown(outcome):
        cells = [Text(cell(index), style="red" if cell(index).startswith("error") else "") for _, cell in others]
        last = index + 1 < len(trials) and trials[index + 1].sample.group != trials[index].sample.group
        table.add_row(Text(label(index)), Text(_said(outcome, index)), *cells, end_section=last)
    console.print(table)


def _list(outcome: Outcome, columns: Sequence[Column], console: Console) -> None:
    """For a narrow terminal: below each completion a line a score."""
    from rich.text import Text

    (_, label), *others = columns
    for index in _shown(outcome):
        console.print(
            Text.assemble((f"{label(index)}  ", "dim"), _said(outcome, index)), no_wrap=True, overflow="ellipsis"
        )
        for header, cell in others:
            console.print(Text(f"   {header} {cell(index)}"))


def _failures(outcome: Outcome, console: Console) -> None:
    from rich.text import Text

    for name, failed in outcome.scored.failures.items():
        for index, error in list(failed.items())[:1]:
            console.print(
                Text(f"reward.{name}: {printable(error.message)}\n  for the completion {_said(outcome, index)!r:.200}"),
                style="red",
            )
            if error.traceback:
                console.print(Text(printable(error.traceback.rstrip())), soft_wrap=True)


def _of_reward(outcome: Outcome, name: str) -> str:
    terms, failed = outcome.scored.terms[name], outcome.scored.failures[name]
    asked = [index for index, term in enumerate(terms) if term is not None or index in failed]
    parts = [f"mean {_number(outcome.mean(name))}"]
    if len(asked) < len(terms):
        parts.append(f"does not apply to {len(terms) - len(asked)} of {len(terms)}")
    if failed:
        parts.append(f"{len(failed)} of {len(asked)} could not be scored")
    if asked:
        parts.append(f"{1000 * outcome.scored.seconds[name] / len(asked):.3g} ms a score")
    return f"{name}: {', '.join(parts)}"


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _number(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.4g}"
