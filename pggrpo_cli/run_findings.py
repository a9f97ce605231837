"""The run that a command line describes, as `pggrpo doctor` finds it: configuration, model, data, one reward call.

The model's weights are not read: shapes, tokenizer and configuration tell what there is to know before a run.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pggrpo_cli.config import TrainConfig
from pggrpo_cli.errors import PggrpoError
from pggrpo_cli.failure import show_cause
from pggrpo_cli.findings import Finding, ok, trouble, warning

if TYPE_CHECKING:
    from pggrpo_cli.model_outline import ModelOutline
    from pggrpo_cli.types import Row

ROWS = 200
"""Rows that are rendered and tokenised; a data set may have millions."""


def run_findings(overrides: list[str], config_dir: str | None) -> Iterator[Finding]:
    """What can be known of `pggrpo train <overrides>` before it starts. What depends on a part in trouble is left out."""
    from pggrpo_cli.check import check_foreign_targets, checked
    from pggrpo_cli.composing import compose

    try:
        config = checked(compose("train", overrides, config_dir))
        check_foreign_targets(config)
    except PggrpoError as error:
        for line in str(error).splitlines():
            yield trouble("configuration", line)
        return
    yield ok("configuration", f"{' '.join(overrides) or 'the default run'}: every key, value and class")
    from transformers.utils import logging

    logging.set_verbosity_error()
    parts: dict[str, Any] = {}
    looks = {"model": _model, "data": _data, "prompts": _prompts, "size": _size, "reward": _reward}
    for name, look in looks.items():
        with _told() as problems:
            yield from look(config, parts)
        yield from (_from_error(name, error) for error in problems)


@contextmanager
def _told() -> Iterator[list[PggrpoError]]:
    """Errors within, as a list: the rest is still worth a look."""
    problems: list[PggrpoError] = []
    try:
        yield problems
    except PggrpoError as error:
        problems.append(error)


def _from_error(name: str, error: PggrpoError) -> Finding:
    show_cause(error)
    return trouble(name, str(error))


def _model(config: TrainConfig, parts: dict[str, Any]) -> Iterator[Finding]:
    from pggrpo_cli.devices import resolve_device
    from pggrpo_cli.instantiate import blamed, component
    from pggrpo_cli.model_outline import outline_of

    resolve_device(config.device)
    with blamed("model", config.model["_target_"]):
        model = outline_of(component(config.model, "model"))
        count = model.num_parameters()
    parts["model"] = model
    size = f"{count / 1e6:.0f}M" if count >= 1e7 else f"{count / 1e6:.2g}M"
    name = config.model.get("path") or str(config.model["_target_"]).rpartition(".")[2]
    yield ok("model", f"{name}: {size} parameters, a context of {model.context_length} tokens")
    yield _tokens(model)
    template = config.model["chat_template"] or model.tokenizer.chat_template
    yield ok("chat template", "there is one" if template else "none, and plain text needs none")


def _tokens(model: ModelOutline) -> Finding:
    tokenizer = model.tokenizer
    ends = ", ".join(f"{tokenizer.convert_ids_to_tokens(one)} ({one})" for one in model.end_token_ids)
    if not ends:
        return trouble(
            "tokens", "no token ends a completion, so each one goes on to sampler.max_new_tokens",
            "set eos_token in the model folder's tokenizer_config.json, or give sampler.stop=[…]",
        )  # fmt: skip
    bos, pad = (f"{token}" if token else "none" for token in (tokenizer.bos_token, tokenizer.pad_token))
    return ok("tokens", f"end {ends}; begin {bos}; pad {pad} (nothing is padded in training)")


def _size(config: TrainConfig, parts: dict[str, Any]) -> Iterator[Finding]:
    """Memory and disk, as `pggrpo plan` foresees them."""
    if not {"model", "rows", "fit together", "rendered"} <= parts.keys():
        return
    from pggrpo_cli.planning.plan_findings import plan_findings
    from pggrpo_cli.planning.run_plan import foreseen

    plan = foreseen(config, Path.cwd(), parts["rows"], parts["sieve"], parts["model"], parts["base"])
    for finding, name in zip(plan_findings(plan), ("memory of the run", "checkpoints"), strict=True):
        yield replace(finding, name=name)


def _data(config: TrainConfig, parts: dict[str, Any]) -> Iterator[Finding]:
    from pggrpo_cli.instantiate import component
    from pggrpo_cli.memory import resident_bytes
    from pggrpo_cli.row_loading import load_rows
    from pggrpo_cli.together import check_together

    rows, sieve = load_rows(config)
    parts |= {"rows": rows, "sieve": sieve, "base": resident_bytes()}
    first = (rows.train or rows.evaluation)[0]
    kind = "text prompt" if isinstance(first.prompt, str) else "conversation"
    with_completions = f" with {len(first.completions)} completions" if first.completions else ""
    columns = ", ".join(first.columns) or "none"
    yield ok(
        "data", f"rows: {len(rows.train)} to train on, {len(rows.evaluation)} held out; each a {kind}{with_completions}; "
        f"columns for the rewards: {columns}",
    )  # fmt: skip
    check_together(config, component(config.loss, "loss"), component(config.sampler, "sampler"), rows)
    parts["fit together"] = True


def _prompts(config: TrainConfig, parts: dict[str, Any]) -> Iterator[Finding]:
    """Rendered by the chat template and counted."""
    if not {"model", "rows"} <= parts.keys():
        return
    from pggrpo_cli.chat_template import use_chat_template
    from pggrpo_cli.prompts import format_of, render_rows

    model: ModelOutline = parts["model"]
    use_chat_template(model.tokenizer, config.model["chat_template"], "model.chat_template")
    new_tokens = config.sampler.get("max_new_tokens") or 0
    room = model.context_length - new_tokens
    if room < 1:
        yield trouble(
            "prompts", f"sampler.max_new_tokens={new_tokens} leaves no room in a context of {room + new_tokens} tokens",
            "lower it",
        )  # fmt: skip
        return
    rows: list[Row] = list(parts["rows"].train[:ROWS])
    rendered = render_rows(rows, model.tokenizer, format_of(config.data), room, model.end_token_ids)
    parts["rendered"] = True
    lengths = [len(prompt.token_ids) for prompt in rendered.prompts]
    said = f"of {len(rows)} rows: {sum(lengths) / len(lengths):.0f} tokens on average, at most {max(lengths)} of {room}"
    bos = model.tokenizer.bos_token_id
    if bos is not None and any(prompt.token_ids[:2] == (bos, bos) for prompt in rendered.prompts):
        yield trouble("prompts", f"{said}; they begin with two BOS tokens", "take the one in the chat template out")
    elif rendered.dropped or rendered.truncated:
        yield warning(
            "prompts", f"{said}; {rendered.dropped} too long and dropped, {rendered.truncated} cut",
            "lower sampler.max_new_tokens, or look at data.max_prompt_tokens and data.overlong",
        )  # fmt: skip
    else:
        yield ok("prompts", said)


def _reward(config: TrainConfig, parts: dict[str, Any]) -> Iterator[Finding]:
    """Called on real rows with made-up completions, as before a run."""
    if "rows" not in parts:
        return
    from pggrpo_cli.parts import some_of_each_part
    from pggrpo_cli.prompts import format_of
    from pggrpo_cli.scoring.scorer import open_scorer
    from pggrpo_cli.types import RewardContext

    rows = some_of_each_part(parts["rows"].train or parts["rows"].evaluation, 4)
    with tempfile.TemporaryDirectory(prefix="pggrpo-doctor-") as folder:
        context = RewardContext(run_dir=Path(folder), device="cpu", seed=config.seed)
        with open_scorer(config, context) as scorer:
            began = time.monotonic()
            scorer.dry_run(rows, format_of(config.data))
            seconds = time.monotonic() - began
            notes = "".join(f"; {note}" for note in scorer.notes)
            problems = list(scorer.warnings)
    names = ", ".join(config.reward)
    if problems:
        yield warning(
            "reward", f"{names}: {problems[0].splitlines()[0].removeprefix('warning: ')}", "see on_error of it"
        )
    else:
        yield ok("reward", f"{names}: called on {len(rows)} rows in {seconds:.1f} s{notes}")
