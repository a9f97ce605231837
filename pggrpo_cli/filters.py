"""Which rows of a data set stay, by keys that every data node has, and how many each of them left out."""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from hashlib import blake2b
from typing import Annotated, Any

from pggrpo_cli.errors import ConfigError, DataError, UserCodeError
from pggrpo_cli.nested import ABSENT, value_at
from pggrpo_cli.prompts import PromptFormat
from pggrpo_cli.ranges import Range
from pggrpo_cli.suggestions import did_you_mean
from pggrpo_cli.types import Row
from pggrpo_cli.user_file import load_function

BOUNDS = frozenset({"min", "max"})
EXAMPLES = 3


@dataclass(frozen=True, kw_only=True)
class RowFilter:
    """Applied to the rows before some are held out; a held-out set of its own is taken as it is.

    A row stays if it fits all of `where`, `keep` says so, and it is none that came before.
    """

    where: dict[str, Any]
    """Column, as rewards see it (a.b: a nested one) → a value, a list of values, or {min, max}, both included."""
    keep: dict[str, Any]
    """{path, name}: a function of the user's, called with a row as a dictionary; it returns True or False."""
    deduplicate: bool
    """Rows with the prompt and the completions of an earlier one are left out."""
    limit: Annotated[int | None, Range(ge=1)]
    """Rows to train on, the first of those that are not held out."""


@dataclass(frozen=True, kw_only=True)
class DataKeys(PromptFormat, RowFilter):
    """All keys of a data node beside those of its class."""


def filter_of(node: Mapping[str, Any]) -> RowFilter:
    """From the data node."""
    return RowFilter(**{field.name: node[field.name] for field in fields(RowFilter)})


class Sieve:
    """A RowFilter at work on one data set, or on the sources of a mixture one after the other."""

    def __init__(self, row_filter: RowFilter) -> None:
        self._filter = row_filter
        self._conditions = list(conditions(row_filter.where))
        path, name = row_filter.keep.get("path"), row_filter.keep.get("name")
        self._keep = None if path is None else load_function(path, name, "data.keep")
        self.seen = 0
        self.dropped: Counter[str] = Counter()
        """Rows by what left them out: where.<column>, keep, duplicates, limit."""

    def kept(self, rows: Iterable[Row]) -> Iterator[tuple[int, Row]]:
        """(place among `rows`, row) of those that stay. Raises DataError where none does, or where no row has a column
        that `where` names."""
        missing = {path for path, _ in self._conditions}
        examples: dict[str, list[str]] = {path: [] for path in missing}
        columns: dict[str, None] = {}
        earlier: set[bytes] = set()
        dropped: Counter[str] = Counter()
        count = 0
        for place, row in enumerate(rows):
            count += 1
            if missing:
                columns |= dict.fromkeys(row.columns)
                missing -= {path for path in missing if value_at(row.columns, path) is not ABSENT}
            reason = self._reason(row, earlier, examples)
            if reason is None:
                yield place, row
            else:
                dropped[reason] += 1
        self.seen += count
        self.dropped += dropped
        if count and missing:
            path = sorted(missing)[0]
            raise DataError(
                f"`data.where.{path}`: no row has this column.{did_you_mean(path, columns)} The columns are "
                f"{', '.join(columns) or 'none'}."
            )
        if count and dropped.total() == count:
            raise DataError(_none_left(count, dropped, examples))

    def limited(self, count: int) -> int:
        """How many of `count` rows are trained on."""
        allowed = count if self._filter.limit is None else min(count, self._filter.limit)
        if allowed < count:
            self.dropped["limit"] += count - allowed
        return allowed

    def for_source(self, node: Mapping[str, Any]) -> Sieve:
        """With the keys that a source of a mixture has itself in place of these."""
        names = {field.name for field in fields(RowFilter)}
        return Sieve(replace(self._filter, **{name: value for name, value in node.items() if name in names}))

    def add(self, source: Sieve) -> None:
        """What the sieve of a source left out."""
        self.seen += source.seen
        self.dropped += source.dropped

    def words(self) -> str:
        """ "812 of 2,000 rows: 1,100 by where.level, 88 duplicates"; empty if all stayed."""
        if not self.dropped:
            return ""
        return f"{self.seen - self.dropped.total():,} of {self.seen:,} rows: {_listed(self.dropped)}"

    def _reason(self, row: Row, earlier: set[bytes], examples: Mapping[str, list[str]]) -> str | None:
        for path, wanted in self._conditions:
            value = value_at(row.columns, path)
            if not _fits(value, wanted, path, row.source):
                seen = examples[path]
                if len(seen) < EXAMPLES and value is not ABSENT and repr(value)[:40] not in seen:
                    seen.append(repr(value)[:40])
                return f"where.{path}"
        if self._keep is not None and not self._asked(row):
            return "keep"
        if self._filter.deduplicate:
            digest = row_digest(row)
            if digest in earlier:
                return "duplicates"
            earlier.add(digest)
        return None

    def _asked(self, row: Row) -> bool:
        assert self._keep is not None
        name = self._filter.keep["name"]
        completions = [completion.content for completion in row.completions]
        # A copy: what the function does to it stays there.
        given = copy.deepcopy({**row.columns, "prompt": row.prompt, "completions": completions})
        try:
            answer = self._keep(given)
        except Exception as error:
            raise UserCodeError(
                f"`data.keep`: {name} raised {type(error).__name__} for {row.source}: {error}. Its traceback stands above."
            ) from error
        if type(answer).__name__ not in ("bool", "bool_"):
            raise UserCodeError(
                f"`data.keep`: {name} returned {answer!r} for {row.source}; True (the row stays) or False is needed."
            )
        return bool(answer)


def conditions(where: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted column, what is wanted of it): a mapping without min and max holds the keys of a nested column."""
    for name, wanted in where.items():
        if isinstance(wanted, Mapping) and not set(wanted) & BOUNDS:
            yield from conditions(wanted, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", wanted


def filter_problems(node: Any, path: str = "data") -> Iterator[str]:
    """What the types of the keys of the data node `path`, and of the sources within it, cannot say."""
    if not isinstance(node, Mapping):
        return
    sources = node.get("sources")
    for name, source in sources.items() if isinstance(sources, Mapping) else ():
        yield from filter_problems(source, f"{path}.sources.{name}")
    where, keep = node.get("where"), node.get("keep")
    for column, wanted in conditions(where) if isinstance(where, Mapping) else ():
        key = f"{path}.where.{column}"
        if isinstance(wanted, str) and re.fullmatch(r"\{?(min|max):.*", wanted):
            yield (
                f"`{key}`: {wanted!r} is half of a range: the shell splits at the comma within {{…}}. Write {key}.min=… "
                f"and {key}.max=…, or put quotes around the whole word."
            )
        elif isinstance(wanted, Mapping) and (set(wanted) - BOUNDS or None in wanted.values()):
            yield f"`{key}`: {dict(wanted)} is no range; allowed is {{min: …, max: …}}, one of them or both."
        elif isinstance(wanted, Mapping) and _is_empty(wanted):
            yield (
                f"`{key}`: min={wanted['min']} is more than max={wanted['max']}, so that no row fits; both are included. "
                f"Exchange them, or leave one out."
            )
        elif isinstance(wanted, list) and (not wanted or any(isinstance(one, (list, Mapping)) for one in wanted)):
            yield f"`{key}`: {wanted} is no list of values; for example {key}=[easy,hard]."
    if isinstance(keep, Mapping):
        file, name = keep.get("path"), keep.get("name")
        if set(keep) - {"path", "name"} or any(not isinstance(one, str | None) for one in (file, name)):
            yield f"`{path}.keep`: {dict(keep)} is not {{path: mine.py, name: good_row}}, or null for both."
        elif (file is None) != (name is None):
            there, lacks = ("name", "path") if file is None else ("path", "name")
            yield f"`{path}.keep.{lacks}`: is missing beside {path}.keep.{there}; a function is a file and its name in it."


def _is_empty(bounds: Mapping[str, Any]) -> bool:
    """Whether nothing lies between them."""
    try:
        return set(bounds) == BOUNDS and bool(bounds["min"] > bounds["max"])
    except TypeError:
        return False


def row_digest(row: Row) -> bytes:
    """Of prompt and completions."""
    contents = [completion.content for completion in row.completions]
    return blake2b(f"{row.prompt}\0{contents}".encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _fits(value: Any, wanted: Any, path: str, source: str) -> bool:
    if isinstance(wanted, Mapping):
        return value is not ABSENT and value is not None and _within(value, wanted, path, source)
    allowed = wanted if isinstance(wanted, list) else [wanted]
    return (None if value is ABSENT else value) in allowed


def _within(value: Any, bounds: Mapping[str, Any], path: str, source: str) -> bool:
    try:
        return all((value >= bound) if name == "min" else (value <= bound) for name, bound in bounds.items())
    except TypeError as error:
        limits = ", ".join(map(repr, bounds.values()))
        raise ConfigError(
            f"`data.where.{path}`: {source} has {value!r} there, which has no order with {limits}; a range is of "
            "numbers in a column of numbers, or of text in one of text."
        ) from error


def _none_left(count: int, dropped: Counter[str], examples: Mapping[str, list[str]]) -> str:
    shown = [f" {path} is {', '.join(seen)}, for example." for path, seen in examples.items() if seen]
    kinds = " 3 is not '3'." if shown else ""
    return f"`data`: none of {count:,} rows is left: {_listed(dropped)}.{''.join(shown)}{kinds} Loosen data.where or data.keep."


def _listed(dropped: Counter[str]) -> str:
    return ", ".join(
        f"{number:,} {name}" if name == "duplicates" else f"{number:,} by {name}"
        for name, number in dropped.most_common()
    )
