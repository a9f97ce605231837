"""How `pggrpo generate --group` shows groups: for people at any width, or an object a completion."""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pggrpo_cli.display.run_view import number
from pggrpo_cli.printable import printable
from pggrpo_cli.recorder import finite
from pggrpo_cli.types import Rollout

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pggrpo_cli.generating.seen_groups import Seen, SeenGroup

WIDTH_OF_A_PIPE = 100
INDENT = 3
ENDS = {"stop": "ended by itself", "length": "cut", "offline": "of the data set"}


def show(seen: Seen) -> None:
    """On stdout. Text of the model is never markup and steers no terminal."""
    from rich.console import Console

    width = shutil.get_terminal_size((WIDTH_OF_A_PIPE, 24)).columns
    console = Console(width=width, markup=False, highlight=False, emoji=False)
    with console.capture() as captured:
        for group in seen.groups:
            for part in _group(group, seen):
                console.print(part, overflow="fold")
    encoding = sys.stdout.encoding or "utf-8"
    text = "\n".join(line.rstrip() for line in captured.get().split("\n"))
    print(text.encode(encoding, "replace").decode(encoding), end="", flush=True)


def as_records(seen: Seen) -> Iterator[str]:
    """A line of JSON a completion: the keys of samples.jsonl, and what is trained of it. ASCII."""
    for group in seen.groups:
        of = group.scored
        for sample, rollout in enumerate(of.rollouts):
            record: dict[str, Any] = {
                "prompt_index": of.prompt.index,
                "sample": sample,
                "prompt": of.prompt.text,
                "completion": rollout.text,
                "completion_ids": rollout.completion_ids.tolist(),
                "finish_reason": rollout.finish_reason,
                "reward": of.rewards[sample],
                "reward_terms": {name: terms[sample] for name, terms in of.reward_terms.items()},
                "weights": dict(seen.weights),
                "advantage": of.advantages[sample],
                "signal": group.signal,
                "trained": sample in group.trained,
                "chosen_over": [rejected for chosen, rejected in group.pairs if chosen == sample],
                "extra": {name: values[sample] for name, values in of.extra.items() if values[sample] is not None},
            }
            if group.recorded is not None:
                record["recorded"] = group.recorded[sample] if sample < len(group.recorded) else None
            yield json.dumps(finite(record), default=str, allow_nan=False)


def _group(group: SeenGroup, seen: Seen) -> Iterator[RenderableType]:
    from rich.padding import Padding
    from rich.text import Text

    of = group.scored
    source = of.prompt.row.source or f"row {of.prompt.index}"
    yield Text(f"{printable(source)}, {len(of.prompt.token_ids)} tokens", style="bold")
    yield Padding(Text(printable(of.prompt.text.rstrip("\n")), style="dim"), (0, 0, 0, INDENT), expand=False)
    for sample, rollout in enumerate(of.rollouts):
        yield Text.assemble(
            (f"{sample:<{INDENT}}", "bold"),
            f"reward {_number(of.rewards[sample])}  advantage ",
            _advantage(of.advantages[sample]),
            f"  {_length(rollout)}, {ENDS[rollout.finish_reason]}",
        )
        said = [_term(name, terms[sample], seen.weights[name]) for name, terms in of.reward_terms.items()]
        said += _training(group, sample, seen)
        yield Padding(Text(printable(", ".join(said)), style="cyan"), (0, 0, 0, INDENT), expand=False)
        yield Padding(Text(printable(rollout.text).rstrip("\n") or "(nothing)"), (0, 0, 0, INDENT), expand=False)
    yield Text.assemble(*_summary(group, seen))
    yield Text("")


def _summary(group: SeenGroup, seen: Seen) -> Iterator[tuple[str, str]]:
    rewards = [reward for reward in group.scored.rewards if not math.isnan(reward)]
    if rewards:
        mean = math.fsum(rewards) / len(rewards)
        yield f"reward: mean {number(mean)}, from {number(min(rewards))} to {number(max(rewards))}; ", ""
    else:
        yield "no reward applies; ", ""
    yield ("it has a signal", "green") if group.signal else ("no signal: nothing can be learned from it", "yellow")
    if seen.compares:
        pairs = ", ".join(f"{chosen} over {rejected}" for chosen, rejected in group.pairs)
        yield f"; pairs: {pairs or 'none'}", ""
    if group.recorded is not None:
        texts = [rollout.text for rollout in group.scored.rollouts]
        same = sum(ours == theirs for ours, theirs in zip(texts, group.recorded, strict=False))
        yield f"; {same} of {len(texts)} completions are those that the run recorded", ""


def _term(name: str, value: float | None, weight: float) -> str:
    return f"{name} {_number(value)}" + ("" if weight == 1 else f" ×{weight:g}")


def _training(group: SeenGroup, sample: int, seen: Seen) -> list[str]:
    """Why it is not trained on, if so."""
    if sample in group.trained:
        return []
    if group.scored.rollouts[sample].finish_reason == "length" and not seen.compares:
        return ["not trained: cut (trainer.mask_truncated)"]
    return ["not trained: in no pair" if seen.compares else "not trained: no reward applies"]


def _advantage(value: float) -> tuple[str, str]:
    style = "green" if value > 0 else "red" if value < 0 else "dim"
    return f"{'+' if value > 0 else ''}{_number(value or 0.0)}", style  # -0.0 is 0


def _number(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else number(value)


def _length(rollout: Rollout) -> str:
    count = len(rollout.completion_ids)
    return f"{count} token" if count == 1 else f"{count} tokens"
