"""JSON-lines files, and what can be wrong with them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pggrpo_cli.data.jsonl import Jsonl
from pggrpo_cli.errors import ConfigError, DataError


def data(path: Path, content: bytes) -> Jsonl:
    path.write_bytes(content)
    return Jsonl(path=str(path), eval_path=None, eval_size=0, columns={}, as_chat=False, streaming=False)


@pytest.mark.fault("T22")
def test_byte_order_mark_line_ends_and_blank_lines_are_tolerated(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbf{"prompt": "a"}\r\n\r\n{"prompt": "\xc3\xa4"}'
    rows = data(tmp_path / "f.jsonl", content).load(1).train
    assert [row.prompt for row in rows] == ["a", "ä"]
    assert rows[1].source.endswith("f.jsonl:3")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"prompt": "a"}\n{"prompt": "b', r"f.jsonl:2: not valid JSON"),
        (b'{"prompt": "a"}\n{"prompt": "\xff"}', r"f.jsonl:2: not UTF-8"),
        (b'{"prompt": "a", "x": NaN}', r"f.jsonl:1: not valid JSON: NaN"),
        (b"[1, 2]", r"f.jsonl:1: a JSON object is needed, not list"),
        (b'{"prompt": "\\ud800 x"}', r"f.jsonl:1: not valid text: half a surrogate pair"),
        (b"[" * 100_000, r"f.jsonl:1: not valid JSON: nested too deeply"),
        (b"", r"`data.path`: holds no rows"),
        (b'{"answer": "a"}', r"f.jsonl:1: there is no column 'prompt'"),
    ],
)
@pytest.mark.fault("T22")
def test_broken_files_name_the_line(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        data(tmp_path / "f.jsonl", content).load(1)


def test_missing_files(tmp_path: Path) -> None:
    missing = data(tmp_path / "f.jsonl", b"")
    with pytest.raises(ConfigError, match=r"`data.path`: .*none.jsonl does not exist"):
        replace(missing, path=str(tmp_path / "none.jsonl")).load(1)
    with pytest.raises(ConfigError, match="is a folder"):
        replace(missing, path=str(tmp_path)).load(1)


def test_held_out_rows(tmp_path: Path) -> None:
    lines = b"\n".join(b'{"prompt": "%d"}' % index for index in range(10))
    full = data(tmp_path / "f.jsonl", lines)
    split = replace(full, eval_size=3).load(1)
    assert (len(split.train), len(split.evaluation)) == (7, 3)
    other = replace(full, eval_path=str(tmp_path / "f.jsonl")).load(1)
    assert (len(other.train), len(other.evaluation)) == (10, 10)
    with pytest.raises(ConfigError, match=r"`data.eval_size`: 10 of 10"):
        replace(full, eval_size=10).load(1)
    (tmp_path / "empty.jsonl").write_bytes(b"\n")
    with pytest.raises(DataError, match=r"`data.eval_path`: holds no rows"):
        replace(full, eval_path=str(tmp_path / "empty.jsonl")).load(1)


def test_rows_with_one_prompt_are_held_out_together(tmp_path: Path) -> None:
    lines = b"\n".join(b'{"prompt": "%d", "id": %d}' % (index % 4, index) for index in range(12))
    parts = replace(data(tmp_path / "f.jsonl", lines), eval_size=1).load(1)
    assert (len(parts.train), len(parts.evaluation)) == (9, 1)
    assert parts.evaluation[0].prompt not in {row.prompt for row in parts.train}
    with pytest.raises(ConfigError, match="4 of 4 different prompts"):
        replace(data(tmp_path / "f.jsonl", lines), eval_size=4).load(1)


@pytest.mark.parametrize("streaming", [True, False])
def test_streaming_reads_the_same_rows(tmp_path: Path, streaming: bool) -> None:
    lines = b"\n".join(b'{"prompt": "%d", "id": %d}' % (index % 4, index) for index in range(12))
    parts = replace(data(tmp_path / "f.jsonl", lines), eval_size=1, streaming=streaming).load(1)
    assert [row.columns["id"] for row in parts.train] == [0, 1, 3, 4, 5, 7, 8, 9, 11]
    assert [row.columns["id"] for row in parts.evaluation] == [2]
