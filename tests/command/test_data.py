"""`pggrpo data preview`: what a run would see, without weights, whatever the data set's text holds."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.text import Text

from pggrpo_cli import preview_display
from tests.command_line import run, run_all

ROWS = [
    {"prompt": f"{a} + {b} [/bold]\u001b[31m?", "answer": str(a + b), "data_source": "sums" if a else "other"}
    for a in range(5)
    for b in range(4)
]
PAIRS = [{"prompt": f"{a} + 1", "chosen": str(a + 1), "rejected": "é"} for a in range(3)]
PAIRS += [
    {"prompt": "long", "chosen": "y" * 600, "rejected": "no"},
    {"prompt": "p" * 505, "chosen": "y" * 99, "rejected": "n"},
]
TINY = ["model=tiny", "data.eval_size=4"]
REFUSED: dict[str, tuple[list[str], list[str]]] = {
    "misspelt command": (["data", "previw"], ["`pggrpo data previw`", "Did you mean preview?"]),
    "misspelt option": (["data", "preview", "--josn"], ["`--josn`", "Did you mean --json?"]),
    "rows": (["data", "preview", "--rows", "many"], ["--rows: 'many' is not a whole number"]),
    "no folder": (["data", "preview", "--config-dir", "nowhere"], ["`--config-dir`", "nowhere"]),
    "misspelt key": (["data", "preview", "data.limt=3"], ["`data.limt`", "Did you mean data.limit?"]),
    "missing file": (["data", "preview", "data=jsonl", "data.path=none.jsonl"], ["`data.path`: none.jsonl does not"]),
    "missing file of a run": (["train", "data=jsonl", "data.path=none.jsonl"], ["`data.path`: none.jsonl does not"]),
}


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("preview")
    write(folder / "rows.jsonl", [*ROWS, ROWS[19], {**ROWS[3], "prompt": "9" * 600}])
    write(folder / "pairs.jsonl", PAIRS)
    return folder


def test_help_and_refusals_are_quick_and_load_nothing(folder: Path) -> None:
    before = time.monotonic()
    done = run(["data", "--help"], folder)
    assert time.monotonic() - before < 3  # 0.2 s on a machine that does nothing else
    assert (done.returncode, done.stderr) == (0, "")
    assert "pggrpo data preview" in done.stdout
    found = run_all([*(line for line, _ in REFUSED.values()), ["data", "--help"], ["data"]], folder)
    for (code, out, err, heavy), (_, words) in zip(found, REFUSED.values(), strict=False):
        assert (code, out, heavy) == (2, "", []), err
        assert all(word in err for word in words), err
    assert [code for code, _, _, _ in found[-2:]] == [0, 2]
    assert sorted(path.name for path in folder.iterdir()) == ["pairs.jsonl", "rows.jsonl"]


@pytest.fixture(scope="module")
def shown(folder: Path) -> dict[str, tuple[int, str, str]]:
    data = ["data=jsonl", "data.path=rows.jsonl"]
    lines = {
        "default": [*data, "data.as_chat=true"],
        "json": [*data, "--json", "--rows", "1", "data.where.data_source=sums", "data.deduplicate=true"],
        "scored in part": [*data, "--rows=0", "reward=[exact_answer,length]", "scoring.each.applies_to=[sums]"],
        "streaming": [*data, "data.streaming=true", "--rows", "0"],
        "pairs": [
            *("data=preference_jsonl", "data.path=pairs.jsonl", "data.eval_size=0"),
            "data.overlong=truncate_left",
        ],
    }
    found = run_all([["data", "preview", *TINY, *words] for words in lines.values()], folder)
    return {name: (code, out, err) for name, (code, out, err, _) in zip(lines, found, strict=True)}


def test_a_preview(shown: dict[str, tuple[int, str, str]]) -> None:
    code, out, err = shown["default"]
    assert code == 0, err
    assert "\x1b" not in out
    for words in (
        "rows to train on, 4 held out",
        "duplicates: 1; data.deduplicate=true",
        "answer: text",
        "context: 512 − ",
        "overlong: 1 row is dropped (data.overlong)",
        "<|user|>0 + 0 [/bold]?<|end|><|assistant|>",
        "▲ the prompt ends here: ",
        "'<|assistant|>'",
    ):
        assert words in out, out
    assert out.count("▲ the prompt ends here") == 3


def test_as_json(shown: dict[str, tuple[int, str, str]]) -> None:
    code, out, err = shown["json"]
    assert code == 0, err
    found = json.loads(out)
    assert (found["read"], found["left_out"]) == (22, {"where.data_source": 5, "duplicates": 1})
    assert (found["train"], found["held_out"], found["duplicates"]) == (12, 4, 0)
    (row,) = found["rows"]
    assert row["text"].startswith("1 + ")
    assert len(row["token_ids"]) == len(row["text"])
    assert found["columns"]["answer"]["types"] == {"text": 12}
    assert found["prompts"]["maximum"] == max(bucket[1] for bucket in found["prompts"]["histogram"])


def test_rows_that_no_reward_applies_to(shown: dict[str, tuple[int, str, str]]) -> None:
    code, out, err = shown["scored in part"]
    assert code == 0, err
    assert "reward.exact_answer does not apply to " in out
    assert "nothing is learnt from them" in out
    assert "▲" not in out


def test_rows_that_are_streamed(shown: dict[str, tuple[int, str, str]]) -> None:
    code, out, err = shown["streaming"]
    assert code == 0, err
    assert "rows to train on, read when their turn comes, 4 held out" in out


def test_completions_of_the_data_set(shown: dict[str, tuple[int, str, str]]) -> None:
    code, out, err = shown["pairs"]
    assert code == 0, err
    assert "1<|end|>\n▲ chosen: 2 tokens train, the last: '1' '<|end|>'" in out
    assert "é<|end|>\n▲ rejected: 3 tokens train" in out
    assert "overlong: 1 row is an error" in out
    assert "overlong: 1 row is cut from the left" in out


def test_a_narrow_terminal(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    done = run(["data", "preview", *TINY, "data=jsonl", "data.path=rows.jsonl"], folder)
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 40


def test_a_terminal_that_says_little_of_itself_has_its_width_all_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(preview_display, "_lines", lambda preview, width: [Text("word " * 30)])
    preview_display.show(None)  # type: ignore[arg-type]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert max(map(len, lines)) <= 40
