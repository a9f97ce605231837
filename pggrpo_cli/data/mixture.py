"""data=mixture: several sources, by weight."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

from pggrpo_cli.errors import ConfigError, DataError
from pggrpo_cli.filters import Sieve
from pggrpo_cli.lazy_rows import LazyRows
from pggrpo_cli.parts import interleaved
from pggrpo_cli.prompts import PromptFormat, apply_format
from pggrpo_cli.row_loading import load_node
from pggrpo_cli.types import Dataset, Row

BARE = PromptFormat(system_prompt=None, prompt_suffix="", max_prompt_tokens=None, overlong="drop")


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """`sources`: a name and the `_target_` node of a data class each, with keys of DataKeys where a source has its
    own. `weights`: how often each comes in relation to the others; 1 for those that are not listed.

    A row's part is the name of its source, and so is its column `data_source` unless it has one. Each source divides
    itself into rows to train on and rows held out; the held-out ones are interleaved by weight, so that
    evaluation.num_prompts of them are mixed as the run is. A prompt that one source holds out is not trained on in
    another. Raises ConfigError, DataError, naming the source's own keys.
    """

    sources: dict[str, Any]
    weights: dict[str, float]

    def load(self, seed: int, sieve: Sieve | None = None) -> Dataset:
        loaded = {name: self._load(name, node, seed, sieve) for name, node in self.sources.items()}
        weights = {name: float(self.weights.get(name, 1.0)) for name in loaded}
        sizes = {name: len(one.evaluation) for name, one in loaded.items()}
        evaluation = [loaded[name].evaluation[place] for name, place in interleaved(sizes, weights)]
        held_out = {_shown(row) for row in evaluation}
        train: list[Row] = []
        notes: list[str] = []
        for name, one in loaded.items():
            kept = [row for row in one.train if _shown(row) not in held_out]
            if not kept:
                raise DataError(
                    f"`data.sources.{name}`: no row is left to train on: every prompt is held out, here or by another "
                    "source. Lower eval_size there."
                )
            notes += [f"data.sources.{name}: {note}" for note in one.notes]
            if len(kept) < len(one.train):
                left_out = len(one.train) - len(kept)
                notes.append(f"data.sources.{name}: {left_out} rows left out, whose prompts another source holds out")
            train += kept
        return Dataset(train=train, evaluation=evaluation, weights=weights, notes=tuple(notes))

    def _load(self, name: str, node: Mapping[str, Any], seed: int, sieve: Sieve | None) -> Dataset:
        key = f"data.sources.{name}"
        with _keys_of(key, node):
            own = None if sieve is None else sieve.for_source(node)
            rows = load_node(node, key, seed, own)
        if sieve is not None and own is not None:
            sieve.add(own)
        if isinstance(rows.train, LazyRows):
            raise ConfigError(f"`{key}.streaming`: a mixture keeps all rows in memory; leave it false.")
        own_format = {field.name: node[field.name] for field in fields(PromptFormat) if field.name in node}
        return replace(
            rows,
            train=_belonging(name, own_format, rows.train),
            evaluation=_belonging(name, own_format, rows.evaluation),
        )


def _belonging(name: str, own_format: Mapping[str, Any], rows: Sequence[Row]) -> list[Row]:
    return [replace(row, part=name, format=own_format, columns={"data_source": name} | row.columns) for row in rows]


def _shown(row: Row) -> str:
    """The prompt as the model sees it, as far as its source decides that."""
    return str(apply_format(row, BARE).prompt)


@contextmanager
def _keys_of(key: str, node: Mapping[str, Any]) -> Iterator[None]:
    """A source speaks of its keys as `data.path`; within a mixture they lie below `key`."""
    names = "|".join(re.escape(str(name)) for name in node if not str(name).startswith("_"))
    try:
        yield
    except (ConfigError, DataError) as error:
        said = re.sub(rf"(?<![\w./-])data\.(?=(?:{names})\b)", f"{key}.", str(error)) if names else str(error)
        error.args = (said.replace("`data`:", f"`{key}`:"),)
        raise
