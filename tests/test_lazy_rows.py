"""Streaming: the rows and prompts of an eager read, one at a time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pggrpo_cli.data.jsonl import Jsonl
from pggrpo_cli.errors import DataError
from pggrpo_cli.filters import RowFilter, Sieve
from pggrpo_cli.lazy_prompts import LazyPrompts, render_lazily
from pggrpo_cli.lazy_rows import LazyRows
from pggrpo_cli.model.tiny import byte_tokenizer
from pggrpo_cli.origin import prompts_digest
from pggrpo_cli.planning.plan import about_data
from pggrpo_cli.prompts import PromptFormat, Renderer
from pggrpo_cli.types import Dataset

NO_FILTER = RowFilter(where={}, keep={}, deduplicate=False, limit=None)
LINES = [{"prompt": "ä" * (index % 7 + 1), "answer": index, "id": index} for index in range(30)]


def jsonl(path: Path, *, streaming: bool = True, eval_size: int = 0) -> Jsonl:
    return Jsonl(path=str(path), eval_path=None, eval_size=eval_size, columns={}, as_chat=False, streaming=streaming)


def write(path: Path, lines: list[dict[str, Any]] = LINES) -> Path:
    blank = "\n\r\n"  # places of lines are not their numbers
    path.write_text("\ufeff" + blank.join(json.dumps(line, ensure_ascii=False) for line in lines), encoding="utf-8")
    return path


def renderer(limit: int = 100, overlong: Any = "drop") -> Renderer:
    tokenizer = byte_tokenizer()
    keys = PromptFormat(system_prompt=None, prompt_suffix="", max_prompt_tokens=None, overlong=overlong)
    return Renderer(
        tokenizer=tokenizer, prompt_format=keys, context_limit=limit, end_token_ids=[tokenizer.eos_token_id]
    )


def lazy(data: Dataset) -> LazyRows:
    assert isinstance(data.train, LazyRows)
    return data.train


@pytest.mark.parametrize("eval_size", [0, 3])
def test_the_same_rows_as_an_eager_read(tmp_path: Path, eval_size: int) -> None:
    file = write(tmp_path / "f.jsonl")
    eager = jsonl(file, streaming=False, eval_size=eval_size).load(1)
    streamed = jsonl(file, eval_size=eval_size).load(1)
    assert list(streamed.train) == list(eager.train)
    assert list(streamed.evaluation) == list(eager.evaluation)
    assert streamed.train[-1] == eager.train[-1]
    assert list(streamed.train[2:9:3]) == list(eager.train[2:9:3])
    assert streamed.train[0].source == f"{file}:{2 * LINES.index({**LINES[eager.train[0].columns['id']]}) + 1}"
    with pytest.raises(IndexError):
        streamed.train[len(streamed.train)]


def test_a_broken_line_is_found_before_anything_is_trained(tmp_path: Path) -> None:
    file = tmp_path / "f.jsonl"
    file.write_text('{"prompt": "a"}\n' * 50 + '{"prompt": 3}\n')
    with pytest.raises(DataError, match=r"f.jsonl:51: column 'prompt' is int"):
        jsonl(file).load(1)


def test_a_file_that_is_written_to_is_refused_and_one_that_is_replaced_is_not_seen(tmp_path: Path) -> None:
    file = write(tmp_path / "f.jsonl")
    rows = jsonl(file).load(1).train
    write(tmp_path / "other.jsonl", LINES[::-1]).rename(file)
    assert rows[0].columns["id"] == 0
    rows = jsonl(file).load(1).train
    with file.open("a") as more:
        more.write('\n{"prompt": "b"}')
    with pytest.raises(DataError, match="has been written to since this run began"):
        rows[0]


def test_the_digest_is_of_content_and_choice(tmp_path: Path) -> None:
    file = write(tmp_path / "f.jsonl")

    def digest(*, eval_size: int = 0, limit: int = 100) -> str:
        rows = lazy(jsonl(file, eval_size=eval_size).load(1, Sieve(NO_FILTER)))
        return prompts_digest(render_lazily(rows, renderer(limit)).prompts)

    first, content = digest(), lazy(jsonl(file).load(1)).digest()
    assert lazy(jsonl(file).load(1)).digest() == content
    assert digest() == first
    assert digest(eval_size=1) != first
    assert digest(limit=6) != first
    write(file, [*LINES[:-1], {**LINES[-1], "answer": "another"}])
    assert digest() != first
    assert lazy(jsonl(file).load(1)).digest() != content


def test_prompts_are_rendered_when_asked_for_and_few_are_kept(tmp_path: Path) -> None:
    eager = jsonl(write(tmp_path / "f.jsonl"), streaming=False).load(1).train
    rendered = render_lazily(lazy(jsonl(tmp_path / "f.jsonl").load(1)), renderer())
    assert len(rendered.prompts) == 30
    assert [prompt.index for prompt in rendered.prompts] == list(range(30))
    assert [prompt.text for prompt in rendered.prompts[:4]] == [row.prompt for row in eager[:4]]
    assert rendered.prompts[3] is rendered.prompts[3]
    assert (rendered.dropped, rendered.truncated, len(rendered.sample)) == (0, 0, 30)


@pytest.mark.fault("T20")
def test_the_next_row_that_fits_takes_the_place_of_one_that_is_too_long(tmp_path: Path) -> None:
    """ä is two bytes, two tokens: with room for 4 only lengths 1 and 2 of 1 … 7 fit."""
    rows = lazy(jsonl(write(tmp_path / "f.jsonl")).load(1))
    rendered = render_lazily(rows, renderer(4))
    prompts = rendered.prompts
    assert [prompt.index for prompt in prompts[:8]] == [0, 1, 7, 7, 7, 7, 7, 7]
    assert prompts[29].index == 29  # 29 % 7 = 1
    assert prompts[23].index == 28
    fresh = LazyPrompts(rows, renderer(4))
    assert [fresh[index].index for index in (6, 2, 23)] == [7, 7, 28]  # whatever was asked for before
    assert rendered.dropped == 20
    assert about_data(Sieve(NO_FILTER), rendered) == [
        "data: rows are read when their turn comes; of 30 looked at 20 are overlong; in such a row's place comes the next "
        "that fits"
    ]
    with pytest.raises(DataError, match="all 30 rows were dropped: their prompts are longer than 1 tokens"):
        render_lazily(rows, renderer(1))
    cut = render_lazily(rows, renderer(4, "truncate_left"))
    assert (cut.truncated, cut.prompts[6].token_ids) == (20, cut.prompts[6].token_ids[-4:])
    with pytest.raises(DataError, match=r"f.jsonl:5: the prompt has 6 tokens, 4 are left"):
        render_lazily(rows, renderer(4, "error"))
