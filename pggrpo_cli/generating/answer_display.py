"""How `pggrpo generate` shows completions: text on stdout as it comes, or an object a completion; all else on stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from pggrpo_cli.display.run_view import duration, number
from pggrpo_cli.generating.aside import Aside
from pggrpo_cli.printable import one_line, printable
from pggrpo_cli.types import FinishReason, Prompt

TAB = "    "


class TextDisplay:
    """On a terminal what could steer it is left out, and each of several completions has a line above that says whose it
    is. Through a pipe the text goes as it is, a line end behind each completion."""

    def __init__(self, prompts: Sequence[Prompt], samples: int, limit: int, aside: Aside) -> None:
        """`limit`: tokens at which an answer is cut, for people."""
        self._prompts, self._samples, self._limit, self._aside = prompts, samples, limit, aside
        self._terminal = sys.stdout.isatty()
        self._several = len(prompts) * samples > 1
        self._open = False
        """Whether the cursor stands behind text of a completion."""
        self._ended_line = True
        self._count, self._tokens, self._cut = 0, 0, 0
        self._started = time.monotonic()
        self._to_begin: tuple[int, int] | None = None

    def begin(self, ordinal: int, sample: int) -> None:
        self._to_begin = ordinal, sample

    def write(self, text: str) -> None:
        self._head()
        self._open = True
        self._ended_line = text.endswith("\n")
        shown = printable(text.replace("\t", TAB)) if self._terminal else text
        encoding = sys.stdout.encoding or "utf-8"
        sys.stdout.write(shown.encode(encoding, "replace").decode(encoding))
        sys.stdout.flush()

    def end(self, token_ids: Sequence[int], text: str, finish_reason: FinishReason) -> None:
        self._head()
        self._close()
        if not text:
            print(flush=True)
        self._count += 1
        self._tokens += len(token_ids)
        self._cut += finish_reason == "length"
        if self._terminal and self._several:
            self._aside.say(
                f"{_tokens(len(token_ids))}, {'cut' if finish_reason == 'length' else 'ended by itself'}", dim=True
            )

    def _close(self) -> None:
        """Ends the line of a completion, whole or not."""
        if self._open and not self._ended_line:
            print(flush=True)
        self._open, self._ended_line = False, True

    def interrupted(self) -> None:
        """What was said stays; the terminal has shown ^C behind it."""
        if self._terminal and not self._open:
            print(flush=True)
        self._close()

    def finish(self) -> None:
        """What it came to."""
        seconds = time.monotonic() - self._started
        pace = f"{_tokens(self._tokens)} in {duration(seconds)}, {number(self._tokens / max(seconds, 1e-9))} a second"
        cut = ""
        if self._cut:
            who = f"{self._cut} of them" if self._several else "the answer was"
            cut = f"; {who} cut at {self._limit} (--max-new-tokens)"
        self._aside.say((f"{self._count} completions, " if self._several else "") + pace + cut, dim=True)

    def _head(self) -> None:
        if self._to_begin is None:
            return
        (ordinal, sample), self._to_begin = self._to_begin, None
        self._aside.clear()
        if self._terminal and self._several:
            whose = [f"prompt {ordinal + 1} of {len(self._prompts)}"] if len(self._prompts) > 1 else []
            whose += [f"sample {sample + 1} of {self._samples}"] if self._samples > 1 else []
            asked = f": {_asked(self._prompts[ordinal])}" if len(self._prompts) > 1 else ""
            self._aside.say(f"── {', '.join(whose)}{asked}", dim=True)


class JsonDisplay:
    """An object a completion, once it is whole: the row's columns, prompt, sample, completion, completion_ids,
    finish_reason. It is what `pggrpo reward test --completions` reads. ASCII, so that nothing in it can steer a terminal."""

    def __init__(self, prompts: Sequence[Prompt], aside: Aside) -> None:
        self._prompts, self._aside = prompts, aside
        self._of = (0, 0)

    def begin(self, ordinal: int, sample: int) -> None:
        self._of = ordinal, sample

    def write(self, text: str) -> None:
        pass

    def end(self, token_ids: Sequence[int], text: str, finish_reason: FinishReason) -> None:
        self._aside.clear()
        ordinal, sample = self._of
        row = self._prompts[ordinal].row
        record: dict[str, Any] = row.columns | {
            "prompt": row.prompt,
            "sample": sample,
            "completion": text,
            "completion_ids": list(token_ids),
            "finish_reason": finish_reason,
        }
        print(json.dumps(record, default=str), flush=True)

    def interrupted(self) -> None:
        pass

    def finish(self) -> None:
        pass


def _asked(prompt: Prompt) -> str:
    """The last thing that was said to the model, cut to what a line holds."""
    content = prompt.row.prompt if isinstance(prompt.row.prompt, str) else prompt.row.prompt[-1].get("content")
    text = one_line(content if isinstance(content, str) else str(content))
    return text if len(text) <= 50 else f"{text[:49]}…"


def _tokens(count: int) -> str:
    return f"{count} token" if count == 1 else f"{count:,} tokens"
