"""metrics.jsonl and samples.jsonl: a line a step, a line a completion, cut back to the checkpoint at a resume."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from pggrpo_cli.errors import CheckpointError
from pggrpo_cli.printable import without_surrogates
from pggrpo_cli.types import Rollout, ScoredGroup, StateDict
from pggrpo_cli.warn import warn as warn_on_stderr

METRICS = "metrics.jsonl"
SAMPLES = "samples.jsonl"
DECIMALS = 5
"""Of a log-probability: sampler and trainer agree on about so many in float32."""


class Recorder:
    """Writes both files of one run. What cannot be written warns once per file and does not end the run: samples are
    lost, lines of metrics wait for the next attempt and go into the checkpoint."""

    def __init__(self, run_dir: Path, warn: Callable[[str], None] = warn_on_stderr) -> None:
        self._metrics = _Lines(run_dir / METRICS)
        self._samples = _Lines(run_dir / SAMPLES)
        self._unwritten_metrics: list[str] = []
        self._warn = warn
        self._warned: set[Path] = set()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._metrics.close()
        self._samples.close()

    def metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """One line {"step": …, name: number or null}."""
        self._unwritten_metrics.append(_line({"step": step, **metrics}))
        if self._append(self._metrics, "".join(self._unwritten_metrics)):
            self._unwritten_metrics.clear()

    def samples(self, step: int, groups: Sequence[ScoredGroup], *, held_out: bool = False) -> None:
        """One line a completion; those of an evaluation are `held_out` and have no advantage. Token ids and the sampler's
        log-probabilities come last: a text does not always say from which tokens it was decoded."""
        self._append(
            self._samples,
            "".join(
                _line(
                    {
                        "step": step,
                        "held_out": held_out,
                        "prompt_index": group.prompt.index,
                        "sample": sample,
                        "prompt": group.prompt.text,
                        "completion": rollout.text,
                        "finish_reason": rollout.finish_reason,
                        "reward": group.rewards[sample],
                        "reward_terms": {name: terms[sample] for name, terms in group.reward_terms.items()},
                        "advantage": group.advantages[sample],
                        **({"extra": extra} if (extra := _of_sample(group.extra, sample)) else {}),
                        **({"prompt_ids": group.prompt.token_ids} if sample == 0 else {}),
                        **_tokens(rollout),
                    }
                )
                for group in groups
                for sample, rollout in enumerate(group.rollouts)
            ),
        )

    def history(self) -> Iterator[tuple[int, dict[str, float | None]]]:
        """The lines of metrics so far."""
        for line in self._metrics.path.read_text(encoding="utf-8").split("\n")[:-1]:
            metrics = json.loads(line)
            yield metrics.pop("step"), metrics

    def state(self) -> StateDict:
        """How long both files are, once they are safely on disk."""
        for lines in (self._metrics, self._samples):
            try:
                lines.flush_to_disk()
            except OSError as error:
                self._warn_once(lines, error)
        return {
            "metrics": self._metrics.size,
            "samples": self._samples.size,
            "unwritten_metrics": list(self._unwritten_metrics),
        }

    def load(self, state: StateDict) -> None:
        """Cuts both files to that length. Files shorter than that (another run directory, a crash of the machine) stay."""
        for lines, size in ((self._metrics, state["metrics"]), (self._samples, state["samples"])):
            if lines.size < size and lines.size > 0:
                self._warn(f"{lines.path} is shorter than when the checkpoint was made; some lines are missing")
            lines.cut(size)
        self._unwritten_metrics = list(state["unwritten_metrics"])

    def _append(self, lines: _Lines, text: str) -> bool:
        try:
            lines.append(text)
        except OSError as error:
            self._warn_once(lines, error)
            return False
        return True

    def _warn_once(self, lines: _Lines, error: OSError) -> None:
        if lines.path not in self._warned:
            self._warned.add(lines.path)
            self._warn(f"{lines.path} cannot be written ({error}); training goes on")


class _Lines:
    """A file that only ever holds whole lines, as far as it can be helped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # Unbuffered: a failed write must not stay in a buffer and come again, or fail again in close().
        self._file = open(path, "ab+", buffering=0)  # noqa: SIM115
        self.size = self._file.seek(0, os.SEEK_END)
        self.cut(self._end_of_last_line())

    def append(self, text: str) -> None:
        """All of `text` or nothing. Raises OSError, or CheckpointError if somebody has deleted the file."""
        if not os.fstat(self._file.fileno()).st_nlink:
            raise CheckpointError(
                f"{self.path} was deleted while the run wrote to it; what would follow could not be resumed."
            )
        data = memoryview(text.encode("utf-8"))
        try:
            written = 0
            while written < len(data):
                count = self._file.write(data[written:])
                if not count:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                written += count
        except OSError:
            self._file.truncate(self.size)
            raise
        self.size += len(data)

    def cut(self, size: int) -> None:
        if size < self.size:
            self._file.truncate(size)
            self.size = size

    def flush_to_disk(self) -> None:
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def _end_of_last_line(self) -> int:
        """Where the last whole line ends: a crash may leave half a line behind it."""
        end = self.size
        while end > 0:
            start = max(0, end - (1 << 16))
            self._file.seek(start)
            block = self._file.read(end - start)
            newline = block.rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            end = start
        return 0


def _tokens(rollout: Rollout) -> dict[str, Any]:
    ids = {"completion_ids": rollout.completion_ids.tolist()}
    if rollout.logprobs is None:
        return ids
    return ids | {"logprobs": [round(value, DECIMALS) + 0.0 for value in rollout.logprobs.tolist()]}


def _of_sample(columns: Mapping[str, Sequence[Any]], sample: int) -> dict[str, Any]:
    return {name: values[sample] for name, values in columns.items() if values[sample] is not None}


def _line(record: dict[str, Any]) -> str:
    """One line of JSON that UTF-8 can hold: NaN and infinities are null, lone surrogates U+FFFD."""
    return without_surrogates(json.dumps(finite(record), ensure_ascii=False, allow_nan=False)) + "\n"


def finite(value: Any) -> Any:
    """`value` with null for NaN and infinities, which JSON does not have."""
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
