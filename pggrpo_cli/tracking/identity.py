"""Which run of a tracker a run directory is: the same one after a resume, and grouped with the jobs of its sweep."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

from pggrpo_cli.json_file import read_object
from pggrpo_cli.whole_file import write_whole


def identity_of(run_dir: Path, tracker: str) -> dict[str, Any]:
    """`id`, `name`, `group` (null outside a sweep) and `state`, the file that keeps them with the last step logged.

    The id is of letters and digits and drawn from the system, not from the generators that a run seeds."""
    file = run_dir / f"{tracker}.json"
    known = read_object(file)
    if not isinstance(known.get("id"), str):
        sweep = _sweep()
        job = run_dir.name if sweep is None else f"{sweep}/{run_dir.name}"
        known = {"id": secrets.token_hex(6), "name": job, "group": sweep, "last_step": -1}
        write_whole(file, json.dumps(known) + "\n")
    return {"id": known["id"], "name": known.get("name"), "group": known.get("group"), "state": str(file.absolute())}


def _sweep() -> str | None:
    """The name of the sweep's folder, if this run is a job of one."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return None
    return Path(HydraConfig.get().sweep.dir).name
