"""Which completions a report shows: best, worst and one at random of some steps, and held-out questions before and after."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from pggrpo_cli.report.buckets import thinned
from pggrpo_cli.report.run import Run
from pggrpo_cli.report.samples_file import Completion

STEPS = 6


class Chosen(NamedTuple):
    why: str
    completion: Completion


class BeforeAfter(NamedTuple):
    """The same held-out prompt, answered at two evaluations."""

    why: str
    before: Completion
    after: Completion


def over_time(run: Run, steps: int = STEPS) -> list[tuple[int, list[Chosen]]]:
    """(step, completions) for the first step that left samples, the last, and evenly spread ones between."""
    there = run.samples.steps(held_out=False)
    found = [
        (there[place], _of_step(run.samples.read(there[place], held_out=False))) for place in thinned(len(there), steps)
    ]
    return [(step, chosen) for step, chosen in found if chosen]


def before_and_after(run: Run) -> list[BeforeAfter]:
    """Of the first evaluation and the best (the last if that is the first): the prompt that gained most, the one that lost
    most, and one at random."""
    there = run.samples.steps(held_out=True)
    best = run.best()
    if len(there) < 2:
        return []
    end = best[0] if best and best[0] in there[1:] else there[-1]
    before = {one.prompt_index: one for one in run.samples.read(there[0], held_out=True)}
    after = {one.prompt_index: one for one in run.samples.read(end, held_out=True)}
    pairs = [(before[key], after[key]) for key in sorted(before.keys() & after.keys())]
    known = [(a, b) for a, b in pairs if a.reward is not None and b.reward is not None]
    if not known:
        return []
    gained = max(known, key=lambda pair: pair[1].scored - pair[0].scored)
    lost = min(known, key=lambda pair: pair[1].scored - pair[0].scored)
    found = []
    if gained[1].scored > gained[0].scored:
        found.append(BeforeAfter("gained most", *gained))
    if lost[1].scored < lost[0].scored:
        found.append(BeforeAfter("lost most", *lost))
    rest = [pair for pair in known if pair not in (gained, lost)] or known
    found.append(BeforeAfter("at random", *min(rest, key=lambda pair: _lot(pair[0]))))
    return found


def _of_step(completions: Sequence[Completion]) -> list[Chosen]:
    """The first of equals is the best; of the others the first lowest is the worst; the lot is drawn by a hash."""
    left = list(completions)
    found: list[Chosen] = []
    scored = [one for one in left if one.reward is not None]
    if scored:
        best = max(scored, key=lambda one: one.scored)
        found.append(Chosen("best", best))
        left.remove(best)
        scored.remove(best)
    if scored:
        worst = min(scored, key=lambda one: one.scored)
        found.append(Chosen("worst", worst))
        left.remove(worst)
    if left:
        found.append(Chosen("at random", min(left, key=_lot)))
    return found


def _lot(one: Completion) -> bytes:
    return hashlib.blake2b(f"{one.step}|{one.prompt_index}|{one.sample}".encode(), digest_size=8).digest()
