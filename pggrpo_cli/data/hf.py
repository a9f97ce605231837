"""data=hf: whatever the `datasets` library reads: hub names, parquet, arrow and csv files, saved folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pggrpo_cli.errors import ConfigError
from pggrpo_cli.ranges import Range
from pggrpo_cli.records import divided
from pggrpo_cli.rows import rows_from_records
from pggrpo_cli.types import Dataset, Row

READERS = {".parquet": "parquet", ".arrow": "arrow", ".csv": "csv", ".json": "json", ".jsonl": "json"}


@dataclass(frozen=True, kw_only=True)
class Hf:
    """`path`: a hub id, a file, or a folder written by save_to_disk. Scripts of a data set are never run."""

    path: str
    name: str | None
    split: str
    eval_split: str | None
    eval_size: Annotated[int, Range(ge=0)]
    columns: dict[str, str]
    as_chat: bool

    def load(self, seed: int) -> Dataset:
        rows = self._rows(self.split)
        evaluation = None if self.eval_split is None else self._rows(self.eval_split)
        return divided(rows, evaluation, self.eval_size, seed, "data.eval_split")

    def _rows(self, split: str) -> list[Row]:
        table = self._table(split)
        records = ((f"{self.path}[{split}]:{index + 1}", record) for index, record in enumerate(table))
        return rows_from_records(records, self.columns, as_chat=self.as_chat, need_preference=False)

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
            return datasets.load_dataset(self.path, self.name, split=split)
        except ConfigError:
            raise
        except (OSError, ValueError, KeyError, RuntimeError, datasets.exceptions.DatasetsError) as error:
            reason = f"there is no split {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:300]
            raise ConfigError(f"`data.path`: cannot read {self.path!r} (split {split!r}): {reason}") from error
