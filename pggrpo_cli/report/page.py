"""The page: one HTML file with everything in it, which asks nothing of any network.

Determinism: what stands in it comes from the run directories alone; the time that it names is the run's.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from functools import partial
from importlib.resources import files
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from pggrpo_cli import __version__
from pggrpo_cli.display.run_view import duration, number, percent
from pggrpo_cli.errors import PggrpoError
from pggrpo_cli.printable import without_surrogates
from pggrpo_cli.private_values import public_setting, public_text
from pggrpo_cli.report import headline, svg
from pggrpo_cli.report.axis import time_unit
from pggrpo_cli.report.chart import COLOURS, Chart
from pggrpo_cli.report.chosen import STEPS, before_and_after, over_time
from pggrpo_cli.report.comparison import AMOUNTS, Comparison, compare
from pggrpo_cli.report.grouping import Group, grouped, run_label
from pggrpo_cli.report.intervals import Interval, of_mean
from pggrpo_cli.report.run import HELD_OUT, Run
from pggrpo_cli.report.run_charts import charts, time_shares
from pggrpo_cli.report.settings import differences, flattened, from_defaults, public_differences, shown_command
from pggrpo_cli.report.visible import shortened, visible

LONGEST_TEXT, LONGEST_OF_SEVERAL = 3000, 1000
"""Characters of a prompt or completion, on the page of one run and of several."""
RUNS_WITH_SAMPLES = 8
"""Of a comparison: so many runs, each group's first, show completions, and of fewer steps."""
MOST_EVALUATIONS = 60
MOST_COLUMNS, MOST_GROUPS = 8, 24
"""Of the tables of what differs between runs."""
ENVIRONMENT = {
    "computes": "products in",
    "threads": "threads",
    "cores": "cores",
    "devices": "devices",
    "cuda": "CUDA",
    "processor": "processor",
    "platform": "platform",
    "git": "git of the folder",
    "git_of_pggrpo": "git of pggrpo",
    "versions": "versions",
}
"""What of environment.json is shown; the folder, which may hold a person's name, is not."""


def render(runs: Sequence[Run]) -> str:
    """The page for one run or several."""
    style, script = _file("page.css"), _file("page.js")
    drawings: list[dict[str, Any]] = []
    view = _one(runs[0], drawings) if len(runs) == 1 else _several(runs, drawings)
    longest = LONGEST_TEXT if len(runs) == 1 else LONGEST_OF_SEVERAL
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_finalized
    )
    environment.filters |= {"number": number, "interval": _interval, "long": partial(shortened, at_most=longest)}
    page = environment.from_string(_file("page.html")).render(
        **view,
        version=__version__,
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
        data=Markup(_json(drawings)),
    )
    return without_surrogates(page)


def _one(run: Run, drawings: list[dict[str, Any]]) -> dict[str, Any]:
    made = charts(run)
    return _common([run]) | {
        "title": f"{run.config['name']}: {run.name}" if str(run.config.get("name", "")) not in run.name else run.name,
        "headline": headline.of_run(run),
        "facts": _facts(run),
        "comparison": None,
        "main": _drawn(made[0], drawings, wide=True) if made else None,
        "figures": [_drawn(chart, drawings) for chart in made[1:]],
        "evaluations": _evaluations(run),
        "sections": [_completions(run, "", STEPS)],
    }


def _several(runs: Sequence[Run], drawings: list[dict[str, Any]]) -> dict[str, Any]:
    groups = grouped(runs)
    comparison = compare(groups)
    firsts = [group.complete[0] for group in groups][:RUNS_WITH_SAMPLES]
    charts_of_all = list(comparison.charts)
    names = list(dict.fromkeys(str(run.config.get("name")) for run in runs if run.config.get("name")))
    return _common(runs) | {
        "title": f"{len(runs)} runs: {', '.join(names)}" if len(names) in (1, 2, 3) else f"{len(runs)} runs",
        "headline": headline.of_comparison(comparison),
        "facts": [],
        "comparison": _table(comparison, groups),
        "main": _drawn(charts_of_all[0], drawings, wide=True) if charts_of_all else None,
        "figures": [_drawn(chart, drawings) for chart in charts_of_all[1:]],
        "evaluations": [],
        "sections": [_completions(run, run.name, 3) for run in firsts],
    }


def _common(runs: Sequence[Run]) -> dict[str, Any]:
    """What stands on every page: configuration, environment, problems, the words typed; as strangers may see them."""
    choices, changed, problem = _against_defaults(runs[0])
    columns = _columns(runs)
    between = public_differences(differences([run.config for _, run in columns])) if len(runs) > 1 else []
    environments = [_environment(run) for _, run in columns]
    return {
        "started": min((run.started for run in runs if run.started), default=""),
        "runs": [{"name": run.name, "status": headline.status(run), "command": shown_command(run.environment.get("argv"))}
                 for run in runs],
        "problems": [(run.name if len(runs) > 1 else "", public_text(words)) for run in runs for words in run.problems],
        "failures": [(run.name, public_text(run.failure)) for run in runs if run.failure],
        "choices": choices,
        "changed": changed,
        "default_problem": problem,
        "columns": [label for label, _ in columns],
        "between": between,
        "config": [(key, public_setting(key, value)) for key, value in flattened(runs[0].config).items()],
        "environment": environments[0],
        "other_environments": [one for one in differences(environments) if len(runs) > 1],
        "sessions": _sessions(runs[0]) if len(runs) == 1 else [],
    }  # fmt: skip


def _columns(runs: Sequence[Run]) -> list[tuple[str, Run]]:
    """(heading, run) of tables that set runs side by side: all of them, or the first of each group if they are many."""
    if len(runs) <= MOST_COLUMNS:
        return [(run.name, run) for run in runs]
    return [(group.label or group.runs[0].name, group.runs[0]) for group in grouped(runs)][:MOST_GROUPS]


def _facts(run: Run) -> list[tuple[str, str, str]]:
    """(label, value, small print) of what is looked for first."""
    found: list[tuple[str, str, str]] = []
    series = run.metrics.get(HELD_OUT).finite()
    if len(series):
        best = run.best()
        last = of_mean(
            [one.reward for one in run.samples.read(int(series.steps[-1]), held_out=True) if one.reward is not None]
        )
        found.append(("held out, at first", number(float(series.values[0])), f"step {series.steps[0]:.0f}"))
        spread = f"{number(last.low)} … {number(last.high)}" if last.low == last.low else ""
        found.append(("held out, at last", number(float(series.values[-1])), spread))
        if best is not None and best[2] == HELD_OUT:
            kept = "checkpoint kept" if best[0] in run.checkpoints else "no checkpoint of it"
            found.append(("held out, best", number(best[1]), f"step {best[0]}, {kept}"))
    elif run.metrics.has(run.main_metric):
        name = run.main_metric
        values = run.metrics.get(name).finite().values
        shown = f"{number(float(values[0]))} → {number(float(values[-1]))}"
        found.append((f"{headline.WORDS.get(name, name)}, first → last step", shown, ""))
    seconds = run.seconds.values
    if len(seconds):
        shares = ", ".join(f"{name} {percent(share)}" for name, _, share in time_shares(run))
        found.append(("training steps took", duration(float(seconds[-1])), shares))
    completions = run.completions.values
    tokens = run.metrics.get("num_tokens").finite().values
    if len(completions):
        found.append(("completions", f"{completions[-1]:,.0f}", f"{tokens[-1]:,.0f} tokens" if len(tokens) else ""))
    memory = run.metrics.get("memory/peak_gb").finite().values
    if len(memory):
        found.append(("peak memory", f"{memory.max():.1f} GB", ""))
    return found


def _drawn(chart: Chart, drawings: list[dict[str, Any]], *, wide: bool = False) -> dict[str, Any]:
    """A figure; wide ones are drawn twice, the second for narrow screens. Its numbers go into `drawings`."""
    name = str(len(drawings))
    drawings.append(svg.numbers(chart))
    legend = [
        (line.label, line.colour % COLOURS) for line in chart.lines if line.style != "faint" or len(chart.lines) == 1
    ]
    if len(legend) > COLOURS:  # of every run: an entry a group
        legend = list(dict.fromkeys((label.rpartition(", ")[0] or label, colour) for label, colour in legend))
    return {
        "title": chart.title,
        "note": chart.note,
        "legend": legend if len(legend) > 1 else [],
        "wide": svg.draw(chart, svg.WIDE, name) if wide else None,
        "small": svg.draw(chart, svg.SMALL, name),
    }


def _table(comparison: Comparison, groups: Sequence[Group]) -> dict[str, Any]:
    limits = []
    for amount, words in AMOUNTS.items():
        limit = comparison.limits[amount]
        unit, name = time_unit(limit) if amount == "seconds" and np.isfinite(limit) else (1.0, words)
        if np.isfinite(limit):
            shown = f"{limit / unit:,.1f} {name}" if amount == "seconds" else f"{limit:,.0f} {words}"
            limits.append((amount, shown))
    colours = {group.label: place for place, group in enumerate(comparison.shown)}
    return {
        "metric": headline.WORDS.get(comparison.metric, comparison.metric),
        "limits": limits,
        "standings": [(one, colours.get(one.group.label)) for one in comparison.standings],
        "runs": [
            (
                group.label,
                run_label(run, group),
                headline.status(run),
                *_first_last_best(run, comparison.metric),
                run.name,
            )
            for group in groups
            for run in group.runs
        ],
        "left_out": max(0, len(groups) - COLOURS),
    }


def _first_last_best(run: Run, metric: str) -> tuple[float | None, float | None, float | None]:
    values = run.metrics.get(metric).finite().values
    if not len(values):
        return None, None, None
    return float(values[0]), float(values[-1]), float(values.min() if metric == "loss" else values.max())


def _evaluations(run: Run) -> list[tuple[int, Interval, str, str]]:
    """(step, held-out reward, tokens of a completion, share cut)."""
    series = run.metrics.get(HELD_OUT).finite()
    found = []
    for step, value in list(zip(series.steps, series.values, strict=True))[:MOST_EVALUATIONS]:
        rewards = [one.reward for one in run.samples.read(int(step), held_out=True) if one.reward is not None]
        spread = of_mean(rewards)
        at = {
            name: dict(zip(one.steps, one.values, strict=True)).get(step)
            for name in ("mean_length", "clipped_ratio")
            for one in [run.metrics.get(f"eval/completions/{name}")]
        }
        interval = (
            Interval(float(value), spread.low, spread.high)
            if np.isclose(spread.value, value)
            else Interval(float(value), np.nan, np.nan)
        )
        found.append((int(step), interval, number(at["mean_length"]), percent(at["clipped_ratio"])))
    return found


def _completions(run: Run, name: str, steps: int) -> dict[str, Any]:
    return {"name": name, "over_time": over_time(run, steps), "before_and_after": before_and_after(run)}


def _against_defaults(run: Run) -> tuple[list[str], list[Any], str]:
    if not run.config:
        return [], [], "there is no configuration to compare"
    try:
        choices, changed = from_defaults(run.config)
    except PggrpoError as error:
        return [], [], public_text(f"the defaults cannot be composed: {error}")
    return choices, public_differences(changed), ""


def _environment(run: Run) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, words in ENVIRONMENT.items():
        value = run.environment.get(key)
        if isinstance(value, list):
            value = ", ".join(map(str, value))
        if key.startswith("git") and isinstance(value, dict):
            value = f"{value.get('revision')}{', with changes' if value.get('dirty') else ''}"
        if key == "versions" and isinstance(value, dict):
            value = ", ".join(f"{name} {version}" for name, version in value.items())
        if isinstance(value, dict):
            value = ", ".join(f"{name} {one}" for name, one in value.items())
        if value not in (None, ""):
            found[words] = str(value)
    return found


def _sessions(run: Run) -> list[tuple[str, str]]:
    """(time, command) of each start and resume; one is no list."""
    earlier = run.environment.get("earlier")
    found = [*(earlier if isinstance(earlier, list) else []), run.environment]
    found = [one for one in found if isinstance(one, dict)]
    return [(str(one.get("time") or "–"), shown_command(one.get("argv"))) for one in found] if len(found) > 1 else []


def _interval(interval: Interval) -> str:
    value = number(None if np.isnan(interval.value) else interval.value)
    return f"{value} [{number(interval.low)}, {number(interval.high)}]" if interval.low == interval.low else value


def _finalized(value: Any) -> Any:
    """Every text that a template shows; markup is ours."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _json(value: Any) -> str:
    """For a script block: no character in it can end the block."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _file(name: str) -> str:
    return (files("pggrpo_cli.report") / name).read_text(encoding="utf-8")
