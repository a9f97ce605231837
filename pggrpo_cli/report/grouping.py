"""Runs that differ in nothing but their seed belong together; what else differs names their group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pggrpo_cli.config import SINGLE_GROUPS
from pggrpo_cli.private_values import public_override
from pggrpo_cli.report.run import Run
from pggrpo_cli.report.settings import differences, flattened, target_name

NO_MATTER = ("seed", "name", "logger", "resume", "security", "device", "checkpoint", "sweep", "hydra")
"""Keys (with all below them) that make no other experiment."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Runs of one configuration."""

    label: str
    runs: tuple[Run, ...]

    @property
    def complete(self) -> tuple[Run, ...]:
        """Those that ended as they should or still go on; all of them if none did."""
        return tuple(run for run in self.runs if run.state in ("finished", "running")) or self.runs


def grouped(runs: Sequence[Run]) -> list[Group]:
    """In the order of each group's first run. Labels are the words that were typed where these tell the groups apart as
    the configurations do, else the keys that differ."""
    by_keys = [_by_keys(run, _what_matters(runs), runs) for run in runs]
    by_words = _by_words(runs)
    labels = by_words if _same_partition(by_keys, by_words) else by_keys
    found: dict[tuple[str, ...], list[Run]] = {}
    for label, run in zip(labels, runs, strict=True):
        found.setdefault(label, []).append(run)
    shown = _told_apart([" ".join(map(public_override, label)) for label in found])
    return [Group(label=label, runs=tuple(members)) for label, members in zip(shown, found.values(), strict=True)]


def _told_apart(labels: Sequence[str]) -> list[str]:
    """Labels that have become alike with what was hidden in them get numbers."""
    return [
        f"{label} ({labels[: place + 1].count(label)})" if labels.count(label) > 1 else label
        for place, label in enumerate(labels)
    ]


def run_label(run: Run, group: Group) -> str:
    """What tells a run from the others of its group."""
    seeds = [one.seed for one in group.runs]
    return f"seed {run.seed}" if run.seed is not None and seeds.count(run.seed) == 1 else run.name


def _what_matters(runs: Sequence[Run]) -> list[str]:
    found = differences([run.config for run in runs])
    return [one.key for one in found if not _below(one.key, NO_MATTER)]


def _by_keys(run: Run, keys: Sequence[str], runs: Sequence[Run]) -> tuple[str, ...]:
    flat = flattened(run.config)
    parts = []
    for key in keys:
        group = key.partition(".")[0]
        target = f"{group}._target_"
        if group in SINGLE_GROUPS and target in keys:
            if key == target:
                parts.append(f"{group}={target_name(flat.get(key, ''))}")
                continue
            # The keys of another class differ as a matter of course: only those that runs of this class differ in count.
            same = [flattened(one.config) for one in runs if flattened(one.config).get(target) == flat.get(target)]
            if len({one.get(key) for one in same}) < 2:
                continue
        parts.append(f"{key}={flat.get(key, '–')}")
    return tuple(parts)


def _by_words(runs: Sequence[Run]) -> list[tuple[str, ...]]:
    words = [
        [word for word in run.overrides if not _below(word.partition("=")[0].lstrip("+~"), NO_MATTER)] for run in runs
    ]
    of_all = set(words[0]).intersection(*words) if words else set()
    return [tuple(dict.fromkeys(word for word in own if word not in of_all)) for own in words]


def _same_partition(first: Sequence[tuple[str, ...]], second: Sequence[tuple[str, ...]]) -> bool:
    pairs = set(zip(first, second, strict=True))
    return len(pairs) == len(set(first)) == len(set(second)) and (len(pairs) == 1 or () not in set(second))


def _below(key: str, prefixes: Sequence[str]) -> bool:
    return any(key == prefix or key.startswith(f"{prefix}.") for prefix in prefixes)
