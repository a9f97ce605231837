"""The panel of the live display: progress, the reward's curve, the metrics that matter, the time, a completion."""

from __future__ import annotations

from collections.abc import Callable
from itertools import zip_longest

from rich import box
from rich.cells import cell_len, chop_cells
from rich.console import RenderableType
from rich.panel import Panel
from rich.text import Text

from pggrpo_cli.display.chart import area, columns
from pggrpo_cli.display.run_view import EVALUATION, RunView, duration, number, percent, tenths, whole
from pggrpo_cli.printable import one_line

NARROW = 64
"""Below this inner width the curve stands under its number."""
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
SHOWN: tuple[tuple[str, str, Callable[[float | None], str]], ...] = (
    ("kl", "kl", number),
    ("entropy", "entropy", number),
    ("clipped", "clip_ratio/region_mean", percent),
    ("accuracy", "rewards/accuracies", percent),
    ("margin", "rewards/margins", number),
    ("length", "completions/mean_length", tenths),
    ("cut off", "completions/clipped_ratio", percent),
    ("no signal", "frac_reward_zero_std", percent),
    ("loss", "loss", number),
    ("grad norm", "grad_norm", number),
    ("lr", "learning_rate", number),
    ("tokens/s", "tokens_per_second", whole),
    ("memory GB", "memory/peak_gb", tenths),
)
PHASES = (("rollout", "█", "cyan"), ("score", "▓", "magenta"), ("update", "▒", "yellow"), ("evaluation", "░", "green"))
LABELS = {"reward": "reward", "rewards/accuracies": "accuracy", "loss": "loss"}


def panel(view: RunView, width: int, height: int) -> RenderableType:
    """At most `height` lines; what matters less goes first when there is too little room."""
    inner = max(width - 4, 10)
    blocks = [_progress(view, inner)]
    if view.total_steps:
        blocks += [_curve(view, inner), _metrics(view, inner), _time(view, inner), _sample(view, inner)]
    airy = height >= 20 and inner >= NARROW
    lines: list[Text] = []
    for block in blocks:
        gap = [Text()] if lines and airy and block else []
        if len(lines) + len(gap) + len(block) + 2 <= height:
            lines += gap + block
    body = Text("\n", no_wrap=True, overflow="crop").join(lines)
    title = Text.assemble(("pggrpo", "bold"), (f" · {one_line(view.title)}" if view.title else "", ""))
    return Panel(
        body,
        title=title,
        title_align="left",
        subtitle=_phase(view),
        subtitle_align="right",
        box=box.ROUNDED,
        border_style="bright_black",
        width=width,
    )


def _phase(view: RunView) -> Text | None:
    if not view.phase:
        return None
    spinner = SPINNER[int(view.clock() * 4) % len(SPINNER)]
    return Text.assemble((f"{spinner} ", "cyan"), f"{view.phase} {duration(view.phase_elapsed)}")


def _progress(view: RunView, inner: int) -> list[Text]:
    """Where the run is: on one line, or two if it is narrow."""
    if not view.total_steps:
        return [Text("getting ready", style="dim")]
    left = f"step {view.step}/{view.total_steps}"
    remaining = view.remaining
    right = duration(view.elapsed)
    if view.step < view.total_steps and remaining is not None:
        right += f" · {duration(remaining)} left"
    beside = inner - len(left) - len(right) - 4
    if inner >= NARROW and beside >= 10:
        return [Text.assemble((f"{left}  ", "bold"), _bar(view, beside), (f"  {right}", "dim"))]
    space = max(inner - len(left) - len(right), 1)
    return [Text.assemble((left, "bold"), " " * space, (right, "dim")), _bar(view, inner)]


def _bar(view: RunView, room: int) -> Text:
    full, half = divmod(round(2 * room * min(view.step / view.total_steps, 1.0)), 2)
    bar = "━" * full + "╸" * half
    return Text.assemble((bar, "cyan"), ("─" * (room - len(bar)), "bright_black"))


def _curve(view: RunView, inner: int) -> list[Text]:
    """The main metric now and at the start; beside (narrow: below) them its course; then the evaluations."""
    name = view.main_metric
    points = [point for point in view.history.get(name, []) if point[0] > 0]
    facts = [_fact(LABELS[name], number(points[-1][1] if points else None), "bold green")]
    if points:
        facts.append(_fact("at first", number(points[0][1]), "dim"))
    spread = view.latest.get("reward_std")
    if name == "reward" and spread is not None:
        facts.append(_fact("spread", number(spread), "dim"))
    wide = inner >= NARROW
    values = columns(points, view.total_steps, inner - (26 if wide else 8))
    known = [value for value in values if value is not None]
    rows = area(values, 3)
    labels = [number(max(known)), "", number(min(known))] if known else ["", "", ""]
    if len(set(known)) == 1:
        labels = ["", labels[0], ""]
    chart = [
        Text.assemble((f"{label:>7}{'┤' if label else '│'}", "dim"), (row, "green" if known else "bright_black"))
        for label, row in zip(labels, rows, strict=True)
    ]
    trail = _trail(view.history.get(EVALUATION, []), inner)
    if not wide:
        return [*facts[:2], *chart, *trail]
    beside = [fact + Text("  ") + line for fact, line in zip_longest(facts, chart, fillvalue=_fact("", "", ""))]
    return beside + trail


def _fact(label: str, value: str, style: str) -> Text:
    return Text.assemble((f"{label:<9}", "dim"), (f"{value:>7}", style))


def _trail(evaluations: list[tuple[int, float]], inner: int) -> list[Text]:
    """The evaluations in order: the first, and of the others as many as there is room for."""
    if not evaluations:
        return []
    first, *rest = [number(value) for _, value in evaluations]
    shown = [first, *rest]
    while rest and 11 + len(" → ".join(shown)) > inner:
        rest = rest[1:]
        shown = [first, "…", *rest]
    *earlier, last = shown
    return [
        Text.assemble((f"{'held out':<11}", "dim"), ("".join(f"{one} → " for one in earlier), "dim"), (last, "bold"))
    ]


def _metrics(view: RunView, inner: int) -> list[Text]:
    items = [(label, write(view.latest[key])) for label, key, write in SHOWN if view.latest.get(key) is not None]
    skipped = view.latest.get("updates/skipped")
    if skipped:
        items.append(("skipped", whole(skipped)))
    gap = 3 if inner >= NARROW else 2
    count = max(1, (inner + gap) // (17 + gap))
    width = (inner + gap) // count - gap
    cells = [
        Text.assemble((f"{label:<9}", "dim"), (f"{value:>{max(width - 9, 0)}}", "yellow" if label == "skipped" else ""))
        for label, value in items
    ]
    return [Text(" " * gap).join(cells[start : start + count]) for start in range(0, len(cells), count)]


def _time(view: RunView, inner: int) -> list[Text]:
    """How the last step's time was spent, as one bar with its legend beside (narrow: below) it."""
    spent = [(name, view.latest.get(f"time/{name}") or 0.0, glyph, style) for name, glyph, style in PHASES]
    total = sum(seconds for _, seconds, _, _ in spent)
    if total <= 0:
        return []
    entries = [
        Text.assemble(
            (f"{glyph} ", style), (f"{'eval' if name == 'evaluation' else name} {percent(seconds / total)}", "dim")
        )
        for name, seconds, glyph, style in spent
        if seconds > 0
    ]
    legend = Text("  ").join(entries)
    wide = inner >= NARROW
    room = inner - legend.cell_len - 2 if wide else inner
    bar = Text()
    begun = ended = 0.0
    for _, seconds, glyph, style in spent:
        ended += seconds / total * room
        bar.append(glyph * (round(ended) - round(begun)), style)
        begun = ended
    if wide:
        return [bar + Text("  ") + legend]
    return [bar, *(Text("  ").join(entries[start : start + 2]) for start in range(0, len(entries), 2))]


def _sample(view: RunView, inner: int) -> list[Text]:
    """The end of a prompt, the beginning of a completion, its reward."""
    if view.sample is None:
        return []
    prompt, completion, reward = view.sample
    room = inner - 2
    asked = one_line(prompt)
    if cell_len(asked) > room:
        asked = "…" + chop_cells(asked[::-1], room - 1)[0][::-1]
    lines = [Text.assemble(("│ ", "bright_black"), (asked, "dim"))]
    said = _wrapped(one_line(completion) or "(nothing)", room, 2)
    lines += [Text.assemble(("│ ", "cyan"), line) for line in said]
    style = "green" if reward > 0 else "dim"
    tag = f"reward {number(reward)}"
    if cell_len(said[-1]) + 2 + len(tag) <= room:
        lines[-1].append(f"  {tag}", style)
    else:
        lines.append(Text.assemble(("│ ", "cyan"), (tag, style)))
    return lines


def _wrapped(text: str, room: int, at_most: int) -> list[str]:
    """Broken between words where there are any; what does not fit into `at_most` lines is an ellipsis."""
    lines: list[str] = []
    while text:
        line = chop_cells(text, room)[0]
        if len(line) < len(text):
            if len(lines) + 1 == at_most:
                return [*lines, chop_cells(text, room - 1)[0] + "…"]
            space = line.rfind(" ")
            line = line[: space + 1] if space > len(line) // 2 else line
        lines.append(line.rstrip())
        text = text[len(line) :]
    return lines
