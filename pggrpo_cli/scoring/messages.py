"""What trainer and worker say to each other: JSON, so that nothing a worker sends can run in the trainer.

Python values that a data set may hold and JSON does not know travel under a tag, towards the worker alone.
"""

from __future__ import annotations

import base64
import datetime
import decimal
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pggrpo_cli.errors import DataError
from pggrpo_cli.scoring.answers import Answers
from pggrpo_cli.types import Sample, ScoreError

TAG = "pggrpo:type"
FROM_TEXT: Mapping[str, Any] = {
    "datetime": datetime.datetime.fromisoformat,
    "date": datetime.date.fromisoformat,
    "time": datetime.time.fromisoformat,
    "Decimal": decimal.Decimal,
    "bytes": base64.b64decode,
}


def encode_samples(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    return [asdict(sample) for sample in samples]


def decode_samples(samples: Sequence[Mapping[str, Any]]) -> list[Sample]:
    return [Sample(**sample) for sample in samples]


def encode_answers(answers: Answers) -> dict[str, Any]:
    return {
        "answers": [asdict(one) if isinstance(one, ScoreError) else one for one in answers.answers],
        "metrics": {str(name): float(value) for name, value in answers.metrics.items()},
        "columns": {str(name): [_loggable(value) for value in values] for name, values in answers.columns.items()},
        "seconds": answers.seconds,
        "notes": [str(note) for note in answers.notes],
    }


def decode_answers(message: Mapping[str, Any]) -> Answers:
    return Answers(
        answers=[ScoreError(**one) if isinstance(one, dict) else one for one in message["answers"]],
        metrics=message["metrics"],
        columns=message["columns"],
        seconds=message["seconds"],
        notes=message["notes"],
    )


def to_bytes(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message, default=_tagged).encode("utf-8", "surrogatepass")


def from_bytes(message: bytes) -> Any:
    return json.loads(message.decode("utf-8", "surrogatepass"), object_hook=_untagged)


def _tagged(value: Any) -> Any:
    kind = type(value).__name__
    if isinstance(value, bytes):
        return {TAG: kind, "text": base64.b64encode(value).decode()}
    if kind in FROM_TEXT:
        return {TAG: kind, "text": value.isoformat() if hasattr(value, "isoformat") else str(value)}
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, (set, frozenset)):
        return list(value)
    raise DataError(
        f"`data`: a column holds {type(value).__module__}.{kind}, which cannot be sent to a reward in a process of its "
        "own. Leave the column out, or run the reward in the trainer with reward.NAME.isolated=false."
    )


def _untagged(value: dict[str, Any]) -> Any:
    return FROM_TEXT[value[TAG]](value["text"]) if TAG in value else value


def _loggable(value: Any) -> Any:
    return value if isinstance(value, (str, int, float, bool, type(None), list, dict)) else str(value)
