"""data=hf: whatever the `datasets` library reads: hub names, parquet, arrow and csv files, saved folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pggrpo_cli.errors import ConfigError
from pggrpo_cli.filters import Sieve
from pggrpo_cli.hub import datasets_from_cache, not_cached, unreachable
from pggrpo_cli.lazy_rows import TableRows, lazily, selected
from pggrpo_cli.nested import plain
from pggrpo_cli.ranges import Range
from pggrpo_cli.records import divided
from pggrpo_cli.rows import row_maker
from pggrpo_cli.types import Dataset, Row

READERS = {".parquet": "parquet", ".arrow": "arrow", ".csv": "csv", ".json": "json", ".jsonl": "json"}


@dataclass(frozen=True, kw_only=True)
class Hf:
    """`path`: a hub id, a file, or a folder written by save_to_disk. Scripts of a data set are never run.

    `streaming`: the table is read and checked once; then each row is read again, from the file that the library maps into
    memory, when its turn comes. What is on the hub is downloaded first all the same.
    """

    path: str
    name: str | None
    split: str
    eval_split: str | None
    eval_size: Annotated[int, Range(ge=0)]
    columns: dict[str, str]
    as_chat: bool
    streaming: bool

    def load(self, seed: int, sieve: Sieve | None = None) -> Dataset:
        rows = self._rows(self.split, sieve)
        evaluation = None if self.eval_split is None else self._rows(self.eval_split, None)
        return divided(rows, evaluation, self.eval_size, seed, "data.eval_split", sieve)

    def _rows(self, split: str, sieve: Sieve | None) -> Sequence[Row]:
        make = row_maker(self.columns, as_chat=self.as_chat, need_preference=False)
        # Without its own format, which may be numpy's or torch's, a table gives Python's values.
        table = self._table(split).with_format(None)
        source = TableRows(f"{self.path}[{split}]", table, lambda where, record: make(where, plain(record)))
        return lazily(source, sieve) if self.streaming else selected(source, sieve)

    def _table(self, split: str) -> Any:
        try:
            import datasets
        except ImportError as error:
            raise ConfigError("`data`: the datasets library is not installed: pip install 'pggrpo[data]'") from error
        local = Path(self.path).expanduser()
        looks_local = self.path.startswith((".", "/", "~")) or local.suffix in READERS
        if looks_local and not local.exists():
            raise ConfigError(f"`data.path`: {self.path} does not exist.")
        datasets.disable_progress_bars()
        away = None
        try:
            if local.is_dir() and ((local / "state.json").exists() or (local / "dataset_dict.json").exists()):
                loaded = datasets.load_from_disk(str(local))
                if not isinstance(loaded, datasets.DatasetDict):
                    loaded = {"train": loaded}
                return loaded[split]
            if local.is_file():
                if local.suffix not in READERS:
                    raise ConfigError(f"`data.path`: {self.path}: allowed are {', '.join(sorted(READERS))} files.")
                # The one split of a file is called train; train[:80%] and train[80%:] divide it.
                return datasets.load_dataset(READERS[local.suffix], data_files={"train": str(local)}, split=split)
            if not local.is_dir():
                away = unreachable()
            with datasets_from_cache(datasets, away):
                return datasets.load_dataset(self.path, self.name, split=split)
        except ConfigError:
            raise
        except (OSError, ValueError, KeyError, RuntimeError, datasets.exceptions.DatasetsError) as error:
            reason = f"there is no split {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:300]
            if away is not None and isinstance(error, OSError):
                reason = not_cached(away)
            raise ConfigError(f"`data.path`: cannot read {self.path!r} (split {split!r}): {reason}") from error
