"""docs/reading_metrics.ipynb, executed on the files of a run."""

from __future__ import annotations

import json
import os
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "docs" / "reading_metrics.ipynb"


def test_it_is_kept_without_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")] == []


@pytest.mark.slow
def test_it_reads_what_a_real_run_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Where CI runs everything is installed: there a lack must fail.
    wanted = import_module if os.environ.get("CI") else pytest.importorskip
    _, _, nbformat, nbclient = (wanted(name) for name in ("pandas", "ipykernel", "nbformat", "nbclient"))
    from pggrpo_cli.cli import main

    run = tmp_path / "run"
    assert main(["train", "debug=fast", f"hydra.run.dir={run}", "logger=[]"]) == 0
    monkeypatch.setenv("PGGRPO_RUN", str(run))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute(cwd=str(tmp_path))
    shown = [text_of(output) for cell in notebook.cells for output in cell.get("outputs", [])]
    lines = [json.loads(line) for line in (run / "samples.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = len((run / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    assert f"{steps} lines of metrics, {len(lines)} completions" in shown[0]
    assert "<iframe" in shown[1]
    assert "eval/reward" in shown[2]
    assert "frac_reward_zero_std" in shown[3]
    assert "time/rollout" in shown[4]
    assert len(shown) == 8


def text_of(output: Any) -> str:
    data = output.get("data", {})
    return str(data.get("text/html") or data.get("text/plain") or output.get("text", ""))
