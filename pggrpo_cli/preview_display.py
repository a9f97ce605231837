"""A preview of the data for a terminal or a pipe. Text of the data set is never markup and steers no terminal."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.text import Text

from pggrpo_cli.data_preview import Column, Lengths, Preview, ShownRow
from pggrpo_cli.printable import one_line, printable

BUCKETS = 8
LAST_TOKENS = 8
WIDTH_OF_A_PIPE = 100
LONGEST_TEXT = 4000
"""Characters of a prompt or a completion that are shown: its two ends."""


def show(preview: Preview) -> None:
    """On stdout, as wide as the terminal; a character that stdout does not know becomes a question mark."""
    tty = sys.stdout.isatty()
    width = shutil.get_terminal_size((WIDTH_OF_A_PIPE, 24)).columns
    buffer = io.StringIO()
    # Without a height rich asks the terminal for both, and takes a dumb one to have 80 columns.
    console = Console(
        file=buffer, width=width, height=24, force_terminal=tty, markup=False, highlight=False, emoji=False
    )
    for line in _lines(preview, width):
        console.print(line, soft_wrap=False, overflow="fold")
    encoding = sys.stdout.encoding or "utf-8"
    print(buffer.getvalue().encode(encoding, "replace").decode(encoding), end="")


def as_json(preview: Preview) -> str:
    """One object; see Preview for its keys. ASCII, so that nothing in it can steer a terminal."""
    values = {name: getattr(preview, name) for name in Preview.__slots__}
    values["columns"] = {
        name: {"types": dict(column.types), "examples": column.examples} for name, column in preview.columns.items()
    }
    for name in ("prompts", "completions"):
        values[name] = _lengths_as_json(values[name])
    values["rows"] = [_row_as_json(row) for row in preview.rows]
    return json.dumps(values, indent=2, default=str)


def _lengths_as_json(lengths: Lengths | None) -> dict[str, Any] | None:
    if lengths is None:
        return None
    found = {name: getattr(lengths, name) for name in ("minimum", "median", "p95", "maximum")}
    return {**found, "histogram": [list(bucket) for bucket in _histogram(lengths)]}


def _row_as_json(row: ShownRow) -> dict[str, Any]:
    return {
        "source": row.source,
        "overlong": row.fate or None,
        "room": row.room,
        "text": row.text,
        "token_ids": [token for token, _ in row.tokens],
        "completions": [
            {
                "label": one.label,
                "text": one.text,
                "token_ids": [token for token, _ in one.tokens],
            }
            for one in row.completions
        ],
        "columns": row.columns,
    }


def _lines(preview: Preview, width: int) -> Iterator[Text]:
    yield from _counts(preview)
    yield _heading("columns")
    for name, column in preview.columns.items():
        yield from _column(name, column)
    yield _heading("tokens")
    yield from _tokens(preview, width)
    for row in preview.rows:
        yield from _row(row)


def _rows(count: int) -> str:
    return f"{count:,} row" if count == 1 else f"{count:,} rows"


def _heading(words: str) -> Text:
    return Text(f"\n{words}", style="bold")


def _counts(preview: Preview) -> Iterator[Text]:
    streamed = ", read when their turn comes" if preview.streaming else ""
    yield Text(f"{_rows(preview.train)} to train on{streamed}, {preview.held_out:,} held out", style="bold")
    kept = preview.read - sum(preview.left_out.values())
    if preview.left_out:
        yield Text(f"filters: {kept:,} of {preview.read:,} rows stay")
        for name, count in sorted(preview.left_out.items(), key=lambda item: -item[1]):
            yield Text(f"  {count:,} left out: {name if name == 'duplicates' else f'data.{name}'}")
    if preview.duplicates:
        yield Text(f"duplicates: {preview.duplicates:,}; data.deduplicate=true leaves them out", style="yellow")
    for name, count in preview.not_scored.items():
        yield Text(f"reward.{name} does not apply to {_rows(count)} (applies_to, by the column data_source)")
    if preview.without_reward:
        yield Text(f"no reward applies to {_rows(preview.without_reward)}: nothing is learnt from them", style="yellow")


def _column(name: str, column: Column) -> Iterator[Text]:
    several = len(column.types) > 1
    types = ", ".join(f"{kind} ({count:,})" if several else kind for kind, count in column.types.most_common())
    yield Text.assemble(("  " + one_line(name), "cyan"), f": {types}")
    for example in column.examples:
        yield Text(f"    {one_line(example)}", style="dim")


def _tokens(preview: Preview, width: int) -> Iterator[Text]:
    if preview.tokenised < preview.train:
        yield Text(f"  of {preview.tokenised:,} rows, spread evenly over all")
    for what, lengths in (("prompt", preview.prompts), ("completion", preview.completions)):
        if lengths is not None:
            yield Text(
                f"  {what}: {lengths.minimum:,} to {lengths.maximum:,}, median {lengths.median:,}, "
                f"95 % up to {lengths.p95:,}"
            )
            yield from _bars(lengths, width)
    new = preview.max_new_tokens
    beside = f" − {new:,} new ones (sampler.max_new_tokens)" if new else ""
    context = "no limit known" if preview.context >= 1 << 30 else f"{preview.context:,}"
    yield Text(f"  context: {context}{beside}; room for a prompt: {preview.room:,}")
    for fate, count in preview.overlong.items():
        of = f" of the {preview.tokenised:,}" if preview.tokenised < preview.train else ""
        yield Text(
            f"  overlong: {_rows(count)}{of} {'is' if count == 1 else 'are'} {fate} (data.overlong)", style="yellow"
        )


def _histogram(lengths: Lengths) -> list[tuple[int, int, int]]:
    """(first length, last length, rows) of up to BUCKETS equal ranges."""
    span = lengths.maximum - lengths.minimum + 1
    step = -(-span // BUCKETS)
    counts = [0] * -(-span // step)
    for value in lengths.values:
        counts[(value - lengths.minimum) // step] += 1
    starts = [lengths.minimum + place * step for place in range(len(counts))]
    return [(start, min(start + step - 1, lengths.maximum), count) for start, count in zip(starts, counts, strict=True)]


def _bars(lengths: Lengths, width: int) -> Iterator[Text]:
    buckets = _histogram(lengths)
    if len(buckets) < 2:
        return
    labels = [f"{first:,}–{last:,}" if last > first else f"{first:,}" for first, last, _ in buckets]
    wide, most = max(map(len, labels)), max(count for _, _, count in buckets)
    room = max(4, min(40, width - wide - 14))
    for label, (_, _, count) in zip(labels, buckets, strict=True):
        bar = "█" * (-(-count * room // most))
        yield Text.assemble(f"    {label:>{wide}} ", (bar, "cyan"), f" {count:,}")


def _row(row: ShownRow) -> Iterator[Text]:
    yield _heading(one_line(row.source) or "row")
    if row.fate:
        words = f"  {row.fate}: {len(row.tokens):,} tokens, {row.room:,} are left for the prompt"
        yield Text(words, style="yellow")
    yield Text(_ends(printable(row.text)))
    yield Text(f"▲ the prompt ends here: {len(row.tokens):,} tokens, the last: {_last(row.tokens)}", style="magenta")
    for one in row.completions:
        yield Text(_ends(printable(one.text)), style="green")
        yield Text(f"▲ {one.label}: {len(one.tokens):,} tokens train, the last: {_last(one.tokens)}", style="magenta")
    for name, value in row.columns.items():
        yield Text.assemble(("  " + one_line(name), "cyan"), f": {one_line(str(value)[:200])}")


def _ends(text: str) -> str:
    half = LONGEST_TEXT // 2
    return (
        text if len(text) <= LONGEST_TEXT else f"{text[:half]}\n… {len(text) - 2 * half:,} characters …\n{text[-half:]}"
    )


def _last(tokens: list[tuple[int, str]]) -> str:
    return " ".join(repr(printable(text)) for _, text in tokens[-LAST_TOKENS:])
