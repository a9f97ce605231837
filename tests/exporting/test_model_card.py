"""The card of an exported model: true, harmless, and without what is nobody's business."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from pggrpo_cli.exporting.export_source import Source
from pggrpo_cli.exporting.model_card import model_card
from tests.command_line import ROOT

GOLDEN = ROOT / "tests" / "golden" / "0.1.0" / "run"


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(GOLDEN, "run")
    return Path("run")


def card(run_dir: Path, step: int = 2, best: dict[str, float] | None = None) -> str:
    checkpoint = run_dir / "checkpoints/step-000002"
    return model_card(
        Source(checkpoint=checkpoint, step=step, run_dir=run_dir, best=best or {}, chosen="the last"),
        "my-model",
        "float32",
    )


def change(run_dir: Path, **values: Any) -> None:
    found = yaml.safe_load((run_dir / "config.yaml").read_text())
    for group, keys in values.items():
        found[group] = {**found[group], **keys}
    (run_dir / "config.yaml").write_text(yaml.safe_dump(found, sort_keys=False))


def header(text: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text.split("---\n")[1])
    return found


def row(text: str, name: str) -> list[str]:
    line = [line for line in text.splitlines() if line.startswith(f"| {name} |")][-1]
    return [cell.strip() for cell in line.strip("|").split("|")[1:]]


def test_method_data_command_versions(run_dir: Path) -> None:
    text = card(run_dir)
    assert text.startswith("---\nlibrary_name: transformers\n")
    assert header(text)["tags"] == ["pggrpo", "pg_grpo"]
    assert "GRPO with the preference ratio" in text
    assert row(text, "`loss.beta`") == ["`0.1`"]
    assert row(text, "`data.path`") == ["`questions.jsonl`"]
    assert row(text, "`reward.length`") == ['`{"weight": 1.0, "target_tokens": 16, "scale_tokens": 16.0}`']
    assert "pggrpo train debug=fast model.hidden_size=8" in text
    assert "torch 2.13.0+cpu" in text
    block = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert block is not None
    assert yaml.safe_load(block[1])["trainer"]["max_steps"] == 2


def test_metrics_side_by_side(run_dir: Path) -> None:
    lines = [
        {"step": 0, "eval/reward": 0.1},
        {"step": 1, "reward": 0.2, "loss": None, "time/update": 3.0},
        {"step": 2, "reward": 0.25, "eval/reward": 0.4, "loss": 1.5},
        {"step": 3, "reward": 0.5, "loss": 2.5},
        {"step": 4, "reward": 0.3, "eval/reward": 0.35, "loss": 0.5},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"step": 5, "rew'
    (run_dir / "metrics.jsonl").write_text(text)
    found = card(run_dir, step=3, best={"step": 2, "value": 0.4})
    assert "| | start | step 2: best | step 3: these weights | step 4: end |" in found
    assert row(found, "`eval/reward`") == ["0.1", "0.4", "–", "0.35"]
    assert row(found, "`reward`") == ["0.2", "0.25", "0.5", "0.3"]
    assert row(found, "`loss`") == ["–", "1.5", "2.5", "0.5"]
    assert "time/update" not in found
    assert "step 4: these weights, end, best" in card(run_dir, step=4, best={"step": 4, "value": 0.4})


def test_base_model_and_data_set(run_dir: Path) -> None:
    change(run_dir, model={"_target_": "pggrpo_cli.model.hf.Hf", "path": "Qwen/Qwen3-0.6B"})
    change(run_dir, data={"_target_": "pggrpo_cli.data.hf.Hf", "path": "openai/gsm8k"})
    found = header(card(run_dir))
    assert (found["base_model"], found["datasets"]) == ("Qwen/Qwen3-0.6B", ["openai/gsm8k"])
    for path in ("/home/alice/base", "./base", "base", "models/base"):
        Path("models/base").mkdir(parents=True, exist_ok=True)
        change(run_dir, model={"path": path}, data={"path": f"{path}.parquet"})
        text = card(run_dir)
        assert "base_model" not in header(text), path
        assert "`base`, post-trained" in text
    assert "alice" not in text


def test_what_is_nobodys_business(run_dir: Path) -> None:
    change(
        run_dir,
        data={"path": "/home/alice/thesis/q.jsonl", "system_prompt": "see /home/alice/notes/x.txt"},
        reward={"judge": {"_target_": "x.Judge", "api_key": "abc123", "url": "https://alice:pw@judge.example/v1"}},
    )
    words = ["data.path=/home/alice/thesis/q.jsonl", "hydra.run.dir=/home/alice/run", "+reward.judge.api_key=abc123"]
    (run_dir / "overrides.yaml").write_text(yaml.safe_dump(words))
    environment = json.loads((run_dir / "environment.json").read_text())
    environment |= {"argv": ["/home/alice/bin/pggrpo"], "folder": "/home/alice"}
    (run_dir / "environment.json").write_text(json.dumps(environment))
    text = card(run_dir)
    assert "alice" not in text
    assert "abc123" not in text
    assert "pw@" not in text
    assert "pggrpo train 'data.path=…/q.jsonl' '+reward.judge.api_key=…'" in text
    assert "hydra.run" not in text
    assert "Where … stands, a path or a secret of the machine was cut." in text


def test_text_of_strangers_stays_text(run_dir: Path) -> None:
    evil = "x` | </details>\n# PWNED\n```\n<script>alert(1)</script>\x1b[2J"
    change(run_dir, data={"prompt_suffix": evil}, loss={"_target_": evil, evil: evil})
    (run_dir / "overrides.yaml").write_text(yaml.safe_dump([f"name={evil}"]))
    environment = json.loads((run_dir / "environment.json").read_text())
    environment["versions"] = {evil: evil}
    (run_dir / "environment.json").write_text(json.dumps(environment))
    text = card(run_dir)
    assert "\x1b" not in text
    outside = re.sub(r"(?ms)^(`{3,})\w*\n.*?^\1$", "", text)
    assert not re.search(r"(?m)^# PWNED", outside)
    inline = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", outside)
    assert "<script>" not in inline.replace(r"\<script\>", "")
    assert inline.count("</details>") == 1
    assert all(line.count("|") - line.count(r"\|") == 3 for line in text.splitlines() if line.startswith("| `data."))


def test_what_a_run_does_not_have(run_dir: Path) -> None:
    for name in ("metrics.jsonl", "environment.json", "overrides.yaml"):
        (run_dir / name).unlink()
    text = card(run_dir)
    assert "The run has left none." in text
    assert "Trained with" not in text
    for name, content in (
        ("environment.json", "[1]"),
        ("overrides.yaml", "{a: ["),
        ("metrics.jsonl", "null\n[1]\n{}\nx\n"),
    ):
        (run_dir / name).write_text(content)
    assert card(run_dir) == text
