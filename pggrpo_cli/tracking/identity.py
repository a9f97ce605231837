"""Which run of a tracker a run directory is: the same one after a resume, and grouped with the jobs of its sweep."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

from pggrpo_cli.json_file import read_object
from pggrpo_cli.whole_file import write_whole

KEYS = {"id", "name", "group", "last_step"}
"""Of the file that keeps an identity."""


def identity_of(run_dir: Path, tracker: str) -> dict[str, Any]:
    """`id`, `name`, `group` (null outside a sweep) and `state`, the file that keeps them with the last step logged.

    The id is of letters and digits and drawn from the system, not from the generators that a run seeds."""
    file = run_dir / f"{tracker}.json"
    known = read_object(file)
    if not isinstance(known.get("id"), str):
        sweep = _sweep(run_dir.absolute())
        name, group = (run_dir.name, None) if sweep is None else (f"{sweep.name}/{_below(run_dir, sweep)}", sweep.name)
        known = {"id": secrets.token_hex(6), "name": name, "group": group, "last_step": -1}
        write_whole(file, json.dumps(known) + "\n")
    return {"id": known["id"], "name": known.get("name"), "group": known.get("group"), "state": str(file.absolute())}


def forget(run_dir: Path) -> None:
    """A new run begins in the directory of one that left no checkpoint: to every tracker it is another run, else the steps that
    the former one had sent would be left out of it."""
    for file in run_dir.glob("*.json"):
        if read_object(file).keys() >= KEYS:
            file.unlink(missing_ok=True)


def _sweep(run_dir: Path) -> Path | None:
    """The folder of the sweep that this run is a job of: the nearest above it with a record that has this one. Read from the
    disk, because a job in a process of its own knows nothing of Hydra."""
    from pggrpo_cli.sweep.record import SWEEP

    sweep = next((folder for folder in run_dir.parents if (folder / SWEEP).is_file()), None)
    if sweep is None:
        return None
    record = read_object(sweep / SWEEP)
    jobs = record.get("jobs")
    folders = [one.get("folder") for one in jobs if isinstance(one, dict)] if isinstance(jobs, list) else []
    # Of a search that another launcher than ours runs, the record has no jobs.
    searched = not folders and record.get("beforehand") is False
    return sweep if searched or _below(run_dir, sweep) in folders else None


def _below(run_dir: Path, sweep: Path) -> str:
    return str(run_dir.absolute().relative_to(sweep))
