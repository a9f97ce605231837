"""JSON of a certain shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pggrpo_cli.errors import ConfigError
from pggrpo_cli.reward.json_schema import JsonSchema
from pggrpo_cli.types import Sample

PERSON = {"type": "object", "required": ["name"], "properties": {"age": {"type": "integer", "minimum": 0}}}


def score(text: str, schema: Any = PERSON, fenced: bool = True) -> float | None:
    sample = Sample(prompt="p", completion=text, completion_ids=[0], finish_reason="stop", columns={})
    (found,) = JsonSchema(schema=schema, fenced=fenced).score([sample])
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"name": "Ada", "age": 36}', 1.0),
        ('  {"name": "Ada"}\n', 1.0),
        ('{"age": 36}', 0.0),
        ('{"name": "Ada", "age": -1}', 0.0),
        ('{"name": "Ada", "age": NaN}', 0.0),
        ('{"name": "Ada"', 0.0),
        ("Ada", 0.0),
        ("", 0.0),
        ("[" * 100_000, 0.0),
        ('Here:\n```json\n{"name": "Ada"}\n```\nDone.', 1.0),
        ('```\n{"age": 1}\n```\nno:\n```json\n{"name": "Ada"}\n```', 1.0),
    ],
)
def test_shapes(text: str, expected: float) -> None:
    assert score(text) == expected


def test_without_fences_the_whole_completion_counts() -> None:
    assert score('```json\n{"name": "Ada"}\n```', fenced=False) == 0.0
    assert score("3", schema={}) == 1.0


def test_a_schema_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "person.json"
    file.write_text(json.dumps(PERSON))
    assert score('{"name": "Ada"}', schema=str(file)) == 1.0


def test_schemas_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"`reward.json_schema.schema`: cannot be read"):
        score("3", schema=str(tmp_path / "none.json"))
    with pytest.raises(ConfigError, match=r"`reward.json_schema.schema`: no JSON schema"):
        score("3", schema={"type": "nonsense"})
