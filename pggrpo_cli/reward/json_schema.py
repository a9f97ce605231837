"""reward=json_schema: 1 if the completion is JSON of a certain shape, else 0."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pggrpo_cli.errors import ConfigError
from pggrpo_cli.types import Sample

_FENCED = re.compile(r"```(?:json)?[ \t]*\n(.*?)```", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class JsonSchema:
    """`schema`, a JSON schema or the path of a file that holds one; {} asks for JSON alone. `fenced`: the last ``` block is
    looked at, where there is one; otherwise the whole completion. NaN and Infinity are no JSON.
    """

    schema: dict[str, Any] | str
    fenced: bool

    def score(self, samples: Sequence[Sample]) -> list[float | None]:
        validator = _validator(self.schema if isinstance(self.schema, str) else json.dumps(self.schema))
        return [float(self._fits(sample.completion, validator)) for sample in samples]

    def _fits(self, text: str, validator: Any) -> bool:
        blocks = _FENCED.findall(text) if self.fenced else []
        try:
            value = json.loads(blocks[-1] if blocks else text, parse_constant=_refuse)
        except (ValueError, RecursionError):
            return False
        return bool(validator.is_valid(value))


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")


@lru_cache(maxsize=8)
def _validator(schema: str) -> Any:
    try:
        from jsonschema.exceptions import SchemaError
        from jsonschema.validators import validator_for
    except ImportError as error:
        raise ConfigError("`reward.json_schema`: not installed: pip install 'pggrpo[json]'") from error
    try:
        text = schema if schema.lstrip().startswith("{") else Path(schema).expanduser().read_text(encoding="utf-8")
        loaded = json.loads(text)
        kind = validator_for(loaded)
        kind.check_schema(loaded)
    except (OSError, ValueError) as error:
        raise ConfigError(f"`reward.json_schema.schema`: cannot be read: {error}") from error
    except SchemaError as error:
        raise ConfigError(f"`reward.json_schema.schema`: no JSON schema: {error.message}") from error
    return kind(loaded)
