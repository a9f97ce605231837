"""What happened, in one sentence."""

from __future__ import annotations

from pggrpo_cli.display.run_view import number
from pggrpo_cli.report.axis import time_unit
from pggrpo_cli.report.comparison import Comparison, Standing
from pggrpo_cli.report.intervals import Interval, moving, of_difference, window_of
from pggrpo_cli.report.run import HELD_OUT, Run

WORDS = {HELD_OUT: "held-out reward", "rewards/accuracies": "share of pairs ranked right"}


def of_run(run: Run) -> str:
    """From where to where, whether that is more than chance, the best checkpoint, and how the run ended."""
    return f"{_course(run)} {_end(run)}"


def of_comparison(comparison: Comparison) -> str:
    known = [one for one in comparison.standings if one.last.value == one.last.value]
    metric = WORDS.get(comparison.metric, comparison.metric)
    if not known:
        return "None of these runs has logged a value to compare yet."
    if len(known) == 1:
        (only,) = known
        seeds = f" over {len(only.group.runs)} seeds" if len(only.group.runs) > 1 else ""
        words = f"The {metric}{seeds} went from {number(only.first.value)} to {_with_interval(only.last)}."
        return words + f" Each run at its best: {_with_interval(only.best)}."
    first, second = known[:2]
    at_equal = not any(_equal(one).value != _equal(one).value for one in (first, second))
    place = f"after {comparison.limits['completions']:,.0f} completions" if at_equal else "at the end"
    a, b = (_equal(one) if at_equal else one.last for one in (first, second))
    apart = a.low > b.high
    verdict = (
        ""
        if apart
        else " With one seed each nothing can be said of chance."
        if all(len(one.group.runs) == 1 for one in (first, second))
        else " Their intervals overlap: with these seeds they cannot be told apart."
    )
    if a.value == b.value:
        return f"Highest {metric} {place}: {first.group.label} and {second.group.label} alike, {_with_interval(a)}.{verdict}"
    return (
        f"Highest {metric} {place}: {first.group.label}, {_with_interval(a)}, before {second.group.label}, "
        f"{_with_interval(b)}.{verdict}"
    )


def status(run: Run) -> str:
    """In a few words."""
    step, steps = run.metrics.last_step, run.max_steps
    if run.state == "failed":
        return f"failed at step {step} of {steps}"
    if run.state == "finished":
        return f"finished after {step} steps" if step >= steps else f"finished after {step} of at most {steps} steps"
    return f"going on, at step {step} of {steps}" if run.state == "running" else f"stopped at step {step} of {steps}"


def _equal(standing: Standing) -> Interval:
    return standing.at_equal["completions"]


def _with_interval(interval: Interval) -> str:
    value = number(interval.value)
    return f"{value} [{number(interval.low)}, {number(interval.high)}]" if interval.low == interval.low else value


def _course(run: Run) -> str:
    name = run.main_metric
    series = run.metrics.get(name).finite()
    words = WORDS.get(name, name)
    if not len(series):
        return "Nothing has been logged yet." if not run.metrics.lines else f"No {words} was logged that is a number."
    if name != HELD_OUT:
        return _of_windows(run, words)
    first, last = float(series.values[0]), float(series.values[-1])
    begin, end = int(series.steps[0]), int(series.steps[-1])
    if len(series) == 1:
        return f"The {words} was {number(first)} at step {begin}."
    before = {one.prompt_index: one.reward for one in run.samples.read(begin, held_out=True)}
    after = {one.prompt_index: one.reward for one in run.samples.read(end, held_out=True)}
    pairs = [(before[key], after[key]) for key in before.keys() & after.keys()]
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    change = of_difference([a for a, _ in known], [b for _, b in known])
    course = f"The {words} {_verb(change, last - first)} from {number(first)} to {number(last)} at step {end}{_evidence(change)}"
    best = run.best()
    if best is None or best[2] != HELD_OUT:
        return f"{course}."
    kept = ", whose checkpoint is kept" if best[0] in run.checkpoints else ""
    return (
        f"{course}, its best{kept}." if best[0] == end else f"{course}; best {number(best[1])} at step {best[0]}{kept}."
    )


def _of_windows(run: Run, words: str) -> str:
    """Without evaluations: the first steps against the last ones."""
    series = run.metrics.get(run.main_metric).finite()
    if len(series) < 4:
        return f"The {words} was {number(float(series.values[0]))} at first and {number(float(series.values[-1]))} at last."
    window = min(window_of(len(series)), len(series) // 2)
    first = float(series.values[:window].mean())
    last, low, high = (float(part[-1]) for part in moving(series.values, window))
    spread = f" (95 % interval {number(low)} … {number(high)})" if high > low else ""
    return f"The {words} went from {number(first)} to {number(last)}{spread}, means of the first and the last {window} steps."


def _verb(change: Interval, plain: float) -> str:
    if change.low > 0:
        return "rose"
    if change.high < 0:
        return "fell"
    if change.low == change.low:
        return "did not change measurably:"
    return "went" if plain else "stayed:"


def _evidence(change: Interval) -> str:
    if change.low != change.low:
        return ""
    return f" (change {_signed(change.value)}, 95 % interval {_signed(change.low)} … {_signed(change.high)} over its prompts)"


def _signed(value: float) -> str:
    return f"{'+' if value > 0 else '−' if value < 0 else ''}{number(abs(value))}"


def _end(run: Run) -> str:
    if run.state == "failed":
        return f"The job failed at step {run.metrics.last_step} of {run.max_steps}."
    known = run.seconds.values
    unit, words = time_unit(float(known[-1])) if len(known) else (1.0, "seconds")
    spent = f", {known[-1] / unit:.1f} {words} of training steps" if len(known) else ""
    step, steps = run.metrics.last_step, run.max_steps
    if run.state == "running":
        return f"The run goes on, at step {step} of {steps}{spent}."
    if run.state == "stopped":
        return f"The run stopped at step {step} of {steps}{spent}, and nothing works on it."
    return f"The run is finished, after {step} steps{spent}."
