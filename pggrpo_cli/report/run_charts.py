"""The charts of one run: everything it logged, each metric in the place where its readers look for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from pggrpo_cli.report.buckets import MAX_POINTS, bucketed, thinned
from pggrpo_cli.report.chart import COLOURS, Chart, Line
from pggrpo_cli.report.intervals import moving, of_mean, window_of
from pggrpo_cli.report.metrics_file import Series
from pggrpo_cli.report.run import HELD_OUT, Run

PHASES = ("time/rollout", "time/score", "time/update", "time/evaluation", "time/checkpoint")
WITHIN = ("time/reference", "time/optimizer")
"""Parts of time/update, which holds them already."""
MOST_OTHERS = 24
"""Charts of metrics that this file does not know, such as those that a reward logs."""


def charts(run: Run) -> list[Chart]:
    """Those that have a value to show. The first is the run's main one."""
    claimed: set[str] = {"num_tokens", "step_time"}
    found = [_main(run, claimed), _terms(run, claimed), _held_out_terms(run, claimed), _preferences(run, claimed)]
    found += _known(run, _LEARNING, claimed)
    found += [_lengths(run, claimed), *_known(run, _SAMPLING, claimed), _gradient(run, claimed)]
    found += [
        *_known(run, _UPDATE, claimed),
        _time(run, claimed),
        *_known(run, _MACHINE, claimed),
        _trouble(run, claimed),
    ]
    others = [name for name in sorted(run.metrics.series) if name not in claimed and run.metrics.has(name)]
    found += [_plain(run, name, {name: name}) for name in others[:MOST_OTHERS]]
    return [replace(chart, lines=shown) for chart in found if (shown := tuple(one for one in chart.lines if one.known))]


Known = tuple[tuple[str, dict[str, str], bool, bool], ...]
"""(title, metric → its words, in percent, from zero)"""
_LEARNING: Known = (
    ("Pairs ranked right", {"rewards/accuracies": "chosen above rejected"}, True, False),
    ("log π of pairs", {"logps/chosen": "chosen", "logps/rejected": "rejected"}, False, False),
    ("KL to the policy before training", {"kl": "kl"}, False, True),
    ("Entropy, nats a token", {"entropy": "entropy"}, False, False),
    (
        "Clipped and clamped ratios",
        {
            "clip_ratio/low_mean": "clipped below",
            "clip_ratio/high_mean": "clipped above",
            "clip_ratio/region_mean": "clipped, either",
            "ratio/clamped_fraction": "clamped before exp",
        },
        True,
        True,
    ),
    ("Largest importance ratio", {"ratio/max": "ratio/max"}, False, False),
)
_SAMPLING: Known = (
    (
        "Completions cut by max_new_tokens",
        {"completions/clipped_ratio": "training", "eval/completions/clipped_ratio": "held out"},
        True,
        True,
    ),
    ("Groups without signal", {"frac_reward_zero_std": "all rewards equal"}, True, True),
    ("Spread of rewards in a step", {"reward_std": "standard deviation"}, False, True),
)
_UPDATE: Known = (
    ("Learning rate", {"learning_rate": "learning_rate"}, False, True),
    ("Loss", {"loss": "loss"}, False, False),
    (
        "Sampler against trainer, |Δ log π|",
        {"sampling/sampling_logp_difference/mean": "mean", "sampling/sampling_logp_difference/max": "largest"},
        False,
        True,
    ),
)
_MACHINE: Known = (
    ("Completion tokens a second", {"tokens_per_second": "tokens_per_second"}, False, True),
    ("Peak memory, GB", {"memory/peak_gb": "memory/peak_gb"}, False, True),
)
_TROUBLE = {
    "reward/errors": "completions without a score",
    "updates/skipped": "updates not applied",
    "memory/out_of_memory": "memory ran out",
}


def curve(series: Series, label: str, colour: int = 0, style: str = "line") -> tuple[Line, str]:
    """A metric as it was logged, and what is to be said of a long one: each point is the mean of some steps."""
    points = bucketed(series.steps, series.values)
    band = points.size > 1
    line = Line(
        label=label, x=points.x, y=points.mean, colour=colour, style=style,  # type: ignore[arg-type]
        low=points.low if band else None, high=points.high if band else None,
    )  # fmt: skip
    return line, f"each point is {points.size} steps: their mean, lowest and highest" if band else ""


def smoothed(series: Series, label: str, colour: int = 0) -> tuple[list[Line], str]:
    """A noisy metric: faintly as it was logged, and its mean over the last steps with the interval of that mean."""
    raw, note = curve(series, label if len(series) < 5 else f"{label}, each step", colour, "faint")
    if len(series) < 5:
        return [replace(raw, style="line")], note
    window = window_of(len(series))
    mean, low, high = moving(series.values, window)
    shown = thinned(len(series))
    middle = Line(
        label=f"{label}, mean of {window} steps", x=series.steps[shown], y=mean[shown], low=low[shown], high=high[shown],
        colour=colour,
    )  # fmt: skip
    words = f"bold: mean over the last {window} steps with its 95 % interval"
    return [raw, middle], f"{words}; faint: {note or 'each step'}"


def held_out_line(run: Run, label: str = "held out", colour: int = 1) -> Line | None:
    """eval/reward with the interval over the held-out prompts, as far as samples.jsonl has their rewards."""
    series = run.metrics.get(HELD_OUT).finite()
    if not len(series):
        return None
    shown = thinned(len(series))
    steps, values = series.steps[shown], series.values[shown]
    found = [
        of_mean([one.reward for one in run.samples.read(int(step), held_out=True) if one.reward is not None])
        for step in steps
    ]
    # Rewards that are not those of the metric (a file that is cut off) say nothing of its interval.
    fits = np.isclose([one.value for one in found], values, rtol=1e-6, atol=1e-9)
    low = np.where(fits, [one.low for one in found], np.nan)
    high = np.where(fits, [one.high for one in found], np.nan)
    return Line(label=label, x=steps, y=values, low=low, high=high, colour=colour, style="points")


def _main(run: Run, claimed: set[str]) -> Chart:
    name = "reward" if run.main_metric == HELD_OUT else run.main_metric
    claimed |= {name, "reward", HELD_OUT}
    series = run.metrics.get(name)
    lines, note = smoothed(series, "training" if name == "reward" else name) if len(series) else ([], "")
    held_out = held_out_line(run)
    if held_out is not None:
        lines.append(held_out)
        note = "; ".join(part for part in (note, "points: held out, with the 95 % interval over its prompts") if part)
    best = run.best()
    marks = ((float(best[0]), f"best, step {best[0]}"),) if best and best[2] == HELD_OUT else ()
    target = run.setting("trainer.target_reward")
    rules = ((float(target), "target_reward"),) if isinstance(target, int | float) else ()
    title = {"reward": "Reward", "loss": "Loss", "rewards/accuracies": "Pairs ranked right"}[name]
    return Chart(
        title=title, lines=tuple(lines), note=note, marks=marks, rules=rules, percent=name == "rewards/accuracies"
    )


def _terms(run: Run, claimed: set[str]) -> Chart:
    """rewards/<name>/mean, unweighted."""
    return _parts(run, claimed, "rewards/", "The reward's parts, before weights")


def _held_out_terms(run: Run, claimed: set[str]) -> Chart:
    return _parts(run, claimed, "eval/rewards/", "The reward's parts, held out", style="points")


def _parts(run: Run, claimed: set[str], prefix: str, title: str, style: str = "") -> Chart:
    found = [name for name in run.metrics.series if name.startswith(prefix) and name.endswith("/mean")]
    claimed.update(found)
    lines: list[Line] = []
    notes: list[str] = []
    for colour, name in enumerate(found[:COLOURS]):
        series, label = run.metrics.get(name), name.removeprefix(prefix).removesuffix("/mean")
        if style:
            line, note = curve(series, label, colour, style)
            lines.append(line)
        else:
            both, note = smoothed(series, label, colour)
            lines += both if len(found) == 1 else both[-1:]
            note = note.partition(";")[0] if len(found) > 1 else note
        notes.append(note)
    if len(found) > COLOURS:
        notes.append(f"the first {COLOURS} of {len(found)}")
    return Chart(title=title, lines=tuple(lines), note="; ".join(dict.fromkeys(filter(None, notes))))


def _preferences(run: Run, claimed: set[str]) -> Chart:
    names = {"rewards/chosen": "chosen", "rewards/rejected": "rejected", "rewards/margins": "margin"}
    claimed.update(names)
    return _plain(run, "DPO’s implicit rewards", names)


def _known(run: Run, known: Known, claimed: set[str]) -> list[Chart]:
    """Of names that no chart shows yet."""
    found = []
    for title, names, percent, zero in known:
        left = {name: words for name, words in names.items() if name not in claimed}
        claimed.update(left)
        found.append(_plain(run, title, left, percent=percent, from_zero=zero))
    return found


def _trouble(run: Run, claimed: set[str]) -> Chart:
    """What never happened needs no picture."""
    claimed.update(_TROUBLE)
    happened = {name: words for name, words in _TROUBLE.items() if (run.metrics.get(name).finite().values > 0).any()}
    return _plain(run, "What went wrong, a step", happened, from_zero=True)


def _plain(run: Run, title: str, names: dict[str, str], *, percent: bool = False, from_zero: bool = False) -> Chart:
    made = [curve(run.metrics.get(name), label, colour) for colour, (name, label) in enumerate(names.items())]
    note = next((words for line, words in made if words), "")
    return Chart(title=title, lines=tuple(line for line, _ in made), note=note, percent=percent, from_zero=from_zero)


def _lengths(run: Run, claimed: set[str]) -> Chart:
    """The band is from the shortest to the longest completion of a step."""
    names = [f"completions/{which}_length" for which in ("mean", "min", "max")]
    claimed.update([*names, "eval/completions/mean_length"])
    lines: list[Line] = []
    mean, low, high = (run.metrics.get(name) for name in names)
    if len(mean):
        same = len(mean) == len(low) == len(high) and bool(
            (mean.steps == low.steps).all() and (mean.steps == high.steps).all()
        )
        points = bucketed(mean.steps, mean.values)
        lines.append(
            Line(
                label="training, mean",
                x=points.x,
                y=points.mean,
                low=bucketed(low.steps, low.values).low if same else None,
                high=bucketed(high.steps, high.values).high if same else None,
            )
        )
    held_out, _ = curve(run.metrics.get("eval/completions/mean_length"), "held out, mean", 1, "points")
    limit = run.setting("sampler.max_new_tokens")
    rules = ((float(limit), "max_new_tokens"),) if isinstance(limit, int) else ()
    note = "band: from the shortest to the longest completion"
    return Chart(title="Tokens of a completion", lines=(*lines, held_out), note=note, rules=rules, from_zero=True)


def _gradient(run: Run, claimed: set[str]) -> Chart:
    claimed.add("grad_norm")
    chart = _plain(run, "Gradient norm, before clipping", {"grad_norm": "grad_norm"}, from_zero=True)
    limit = run.setting("trainer.max_grad_norm")
    known = run.metrics.get("grad_norm").finite().values
    near = isinstance(limit, int | float) and len(known) and known.max() > limit / 20
    return replace(chart, rules=((float(limit), "max_grad_norm"),) if near else ())


def _time(run: Run, claimed: set[str]) -> Chart:
    """Seconds of each step, phase on phase."""
    claimed.update((*PHASES, *WITHIN))
    present = [name for name in PHASES if run.metrics.has(name)]
    steps = np.unique(np.concatenate([run.metrics.get(name).steps for name in present])) if present else np.empty(0)
    steps = steps[steps > 0]
    lines = []
    size = 1
    for name in present:
        series = run.metrics.get(name)
        seconds = np.zeros(len(steps))
        inside = np.isin(series.steps, steps)
        seconds[np.searchsorted(steps, series.steps[inside])] = np.nan_to_num(series.values[inside])
        points = bucketed(steps, seconds, MAX_POINTS)
        size = points.size
        lines.append(
            Line(label=name.removeprefix("time/"), x=points.x, y=points.mean, colour=PHASES.index(name), style="area")
        )
    if not len(steps):
        lines = []
    note = f"each point is the mean of {size} steps" if size > 1 else ""
    return Chart(title="Seconds of a step", lines=tuple(lines), note=note, stacked=True)


def time_shares(run: Run) -> Iterator[tuple[str, float, float]]:
    """(phase, seconds of the whole run, share), phases that took time."""
    sums = {name: float(np.nansum(run.metrics.get(name).values)) for name in PHASES}
    total = sum(sums.values())
    for name, seconds in sums.items():
        if seconds > 0:
            yield name.removeprefix("time/"), seconds, seconds / total
