"""What the README tells people to run of benchmarks/."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from pggrpo_cli.check import check
from pggrpo_cli.composing import compose
from tests.command_line import ROOT, environment


def test_preference_pairs_of_a_model_fit_the_experiment(tmp_path: Path) -> None:
    """`make preferences`, with the tiny model: a right and a wrong answer of the same question, none held out."""
    script = ROOT / "benchmarks" / "arithmetic_preferences.py"
    words = ["model=tiny", "data.size=200", "data.eval_size=4", "sampler.max_new_tokens=2", "reward=format"]
    words += ["reward.format.pattern='[!-P].*'", 'data.prompt_suffix=""']
    done = subprocess.run(
        [sys.executable, str(script), *words], cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    pairs = [json.loads(line) for line in (tmp_path / "outputs/arithmetic_preferences.jsonl").read_text().splitlines()]
    held_out = [json.loads(line) for line in (tmp_path / "outputs/arithmetic_held_out.jsonl").read_text().splitlines()]
    assert len(pairs) > 10
    assert len(held_out) == 4
    assert not {str(pair["prompt"]) for pair in pairs} & {str(row["prompt"]) for row in held_out}
    assert all(pair["chosen"] != pair["rejected"] for pair in pairs)
    check(compose("train", ["experiment=dpo_arithmetic"]))


def test_the_table_of_memory_is_written_from_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    pages = import_module("results_page")
    rows = [{"work": "tiny", "estimated": 0.6, "measured": 0.5, "phase": "update", "parts": {}}]
    lines = pages.memory({"machine": "2 cores, a CPU", "rows": rows})
    assert lines[0] == "2 cores, a CPU:"
    assert lines[-1] == "| tiny | 0.60 GB | 0.50 GB | 1.20 | update |"
    page = (ROOT / "docs" / "memory.md").read_text(encoding="utf-8")
    before, after = page.split("<!-- results -->")[0], page.split("<!-- /results -->")[1]
    written = pages.between_markers(page, lines)
    assert written == f"{before}<!-- results -->\n" + "\n".join(lines) + f"\n<!-- /results -->{after}"
    with pytest.raises(ValueError, match="no <!-- results -->"):
        pages.between_markers("a page", lines)
