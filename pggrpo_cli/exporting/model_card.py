"""README.md of an exported model: what was done to it, with what, how it went. Written for strangers to read.

What stands in it is a run's own configuration and metrics, perhaps somebody else's run: it is shown as text, without
control characters, inside code or tables, and without the paths and secrets of the machine (private_values.py).
"""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pggrpo_cli import __version__
from pggrpo_cli import run_directory as runs
from pggrpo_cli.class_source import is_ours
from pggrpo_cli.config import conf_dir
from pggrpo_cli.exporting.export_source import Source
from pggrpo_cli.exporting.hub import REPOSITORY
from pggrpo_cli.json_file import read_object
from pggrpo_cli.printable import one_line, printable
from pggrpo_cli.private_values import HIDDEN, public, public_override, public_text
from pggrpo_cli.report.metrics_file import read_metrics

HOME = "https://github.com/pggrpo/pggrpo"
SHOWN = (
    r"eval/reward|eval/rewards/[^/]+/mean|eval/completions/mean_length|reward|rewards/[^/]+/mean"
    r"|rewards/(?:accuracies|margins)|kl|entropy|completions/mean_length|loss"
)
"""Metrics of the table, in the order in which the run wrote them."""


def model_card(source: Source, name: str, dtype: str) -> str:
    """The card of a model called `name`, its weights in `dtype`."""
    if source.run_dir is None:
        values: dict[str, Any] = {}
        body = ["The checkpoint lay outside of its run, so nothing is known of how it was trained.", ""]
    else:
        values = public(runs.read_config(source.run_dir))
        body = [*_method(values), *_data(values), *_metrics(source, values), *_how(source.run_dir, values)]
    lines = [
        *_header(values),
        f"# {_text(name)}",
        "",
        _summary(source, values, dtype),
        "",
        *_use(source, values, name),
        *body,
    ]
    return "\n".join([*lines, *_versions(source.run_dir)]) + "\n"


def _header(values: Mapping[str, Any]) -> list[str]:
    header: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    base, data = _base_model(values), _node(values, "data").get("path")
    if base is not None and re.fullmatch(REPOSITORY, base):
        header["base_model"] = base
    if _name_of(values, "data") == "hf" and isinstance(data, str) and _on_hub(data):
        header["datasets"] = [data]
    method = _name_of(values, "loss") or ""
    header["tags"] = ["pggrpo", *([method] if re.fullmatch(r"\w+", method) else [])]
    return ["---", yaml.safe_dump(header, sort_keys=False, allow_unicode=True).rstrip(), "---", ""]


def _summary(source: Source, values: Mapping[str, Any], dtype: str) -> str:
    base, steps = _base_model(values), (values.get("trainer") or {}).get("max_steps")
    what = f"{_code(base)}, post-trained" if base else "A model post-trained"
    of = f" of {steps}" if steps else ""
    return (
        f"{what} with [pggrpo]({HOME}) {__version__}. The weights are those after step {source.step}{of} "
        f"({_text(source.chosen)}), in {dtype}."
    )


def _use(source: Source, values: Mapping[str, Any], name: str) -> list[str]:
    folder = f"folder = {json.dumps(one_line(name))}  # where this file lies, or the name of the repository"
    ask = 'inputs = tokenizer("What is 3 + 4?", return_tensors="pt")'
    if _has_template(source.checkpoint):
        ask = (
            'chat = [{"role": "user", "content": "What is 3 + 4?"}]\n'
            'inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)'
        )
    data = _node(values, "data")
    lines = ["## Use", "", "```python", "from transformers import AutoModelForCausalLM, AutoTokenizer", "", folder]
    lines += [
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
        'model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")',
        ask,
        "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=64)[0]))",
        "```",
        "",
    ]
    for key, words in (("system_prompt", "the system prompt"), ("prompt_suffix", "behind each question")):
        if data.get(key):
            lines += [f"It was trained with {words} {_code(_quoted(data[key]))}.", ""]
    return lines


def _has_template(checkpoint: Path) -> bool:
    in_config = read_object(checkpoint / "tokenizer_config.json").get("chat_template")
    return bool(in_config) or (checkpoint / "chat_template.jinja").exists()


def _method(values: Mapping[str, Any]) -> list[str]:
    lines = ["## Method", ""]
    comment = _first_comment("loss", _name_of(values, "loss"))
    if comment:
        lines += [f"{comment}.", ""]
    lines += ["| key | value |", "|---|---|"]
    for group in ("loss", "advantage", "sampler", "optimizer", "scheduler"):
        lines.append(f"| `{group}` | {_code(_name_of(values, group) or _node(values, group).get('_target_', '?'))} |")
        keys = {key: value for key, value in _node(values, group).items() if not key.startswith("_")}
        lines += [f"| {_code(f'{group}.{key}')} | {_code(_plain(value))} |" for key, value in keys.items()]
    trainer = values.get("trainer") or {}
    for key in ("max_steps", "prompts_per_step", "passes_per_rollout", "minibatches", "max_grad_norm"):
        lines.append(f"| `trainer.{key}` | {_code(_plain(trainer.get(key)))} |")
    return [*lines, f"| `seed` | {_code(_plain(values.get('seed')))} |", ""]


def _data(values: Mapping[str, Any]) -> list[str]:
    lines = ["## Data and rewards", "", "| key | value |", "|---|---|"]
    lines.append(f"| `data` | {_code(_name_of(values, 'data') or '?')} |")
    for key, value in _node(values, "data").items():
        if not key.startswith("_"):
            lines.append(f"| {_code(f'data.{key}')} | {_code(_plain(value))} |")
    rewards = values.get("reward")
    for name, node in (rewards if isinstance(rewards, Mapping) else {}).items():
        keys = {key: value for key, value in node.items() if key != "_target_"} if isinstance(node, Mapping) else {}
        lines.append(f"| {_code(f'reward.{name}')} | {_code(_plain(keys))} |")
    return [*lines, ""]


def _metrics(source: Source, values: Mapping[str, Any]) -> list[str]:
    """Start, these weights, the best and the end of the run, side by side."""
    assert source.run_dir is not None
    metrics = read_metrics(source.run_dir / runs.METRICS)
    if not metrics.lines:
        return ["## Metrics", "", "The run has left none.", ""]
    columns: dict[int, list[str]] = {source.step: ["these weights"], metrics.last_step: ["end"]}
    if source.step == metrics.last_step:
        columns = {source.step: ["these weights", "end"]}
    if source.best:
        columns.setdefault(int(source.best["step"]), []).append("best")
    titles = [f"step {step}: {', '.join(words)}" for step, words in sorted(columns.items())]
    lines = ["## Metrics", "", f"| | start | {' | '.join(titles)} |", f"|---|---|{'---|' * len(titles)}"]
    for name, series in metrics.series.items():
        if re.fullmatch(SHOWN, name):
            cells = [float(series.values[0]), *(series.at(step) for step in sorted(columns))]
            lines.append(f"| {_code(name)} | {' | '.join(map(_number, cells))} |")
    evaluation = values.get("evaluation") or {}
    return [
        *lines,
        "",
        f"`eval/…` is of held-out prompts (at most {_text(str(evaluation.get('num_prompts')))}, temperature "
        f"{_text(str(evaluation.get('temperature')))}); a step without an evaluation has none. What each name means: "
        f"[metrics]({HOME}/blob/main/docs/metrics.md).",
        "",
    ]


def _how(run_dir: Path, values: Mapping[str, Any]) -> list[str]:
    words = [public_override(word) for word in _overrides(run_dir) if not word.lstrip("+~").startswith("hydra.")]
    command = " ".join(["pggrpo train", *(shlex.quote(printable(word)) for word in words)])
    config = printable(yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True, width=120))
    cut = (
        [f"Where {HIDDEN} stands, a path or a secret of the machine was cut.", ""] if HIDDEN in command + config else []
    )
    return [
        "## How it was made",
        "",
        *_fenced(command, "sh"),
        "",
        *cut,
        "<details><summary>The whole configuration</summary>",
        "",
        *_fenced(config, "yaml"),
        "",
        "</details>",
        "",
    ]


def _versions(run_dir: Path | None) -> list[str]:
    environment = {} if run_dir is None else read_object(run_dir / runs.ENVIRONMENT)
    versions = environment.get("versions")
    pairs = versions.items() if isinstance(versions, Mapping) else ()
    lines = ["## Versions", "", f"Exported by pggrpo {__version__}."]
    if pairs:
        trained = ", ".join(f"{_text(str(name))} {_text(str(version))}" for name, version in pairs)
        lines.append(f"Trained with {trained}; products in {_text(str(environment.get('computes', '?')))}.")
    return lines


def _base_model(values: Mapping[str, Any]) -> str | None:
    """The hub's name of the model before training, or the name of its file or folder."""
    node = _node(values, "model")
    name = node.get("hub_id") or node.get("path")
    if not isinstance(name, str) or not name:
        return None
    return name if _on_hub(name) else name.rstrip("/").rpartition("/")[2]


def _on_hub(name: str) -> bool:
    """Nothing else tells a hub's name from a relative path."""
    return re.fullmatch(REPOSITORY, name) is not None and not name.startswith((".", HIDDEN)) and not Path(name).exists()


def _node(values: Mapping[str, Any], group: str) -> Mapping[str, Any]:
    node = values.get(group)
    return node if isinstance(node, Mapping) else {}


def _name_of(values: Mapping[str, Any], group: str) -> str | None:
    """pg_grpo for pggrpo_cli.loss.pg_grpo.PgGrpo; AdamW for torch.optim.AdamW; the class of a user's own."""
    target = str(_node(values, group).get("_target_", ""))
    parts = target.split(".")
    if is_ours(target) and len(parts) > 2:
        return parts[-2]
    return parts[-1] or None


def _first_comment(group: str, name: str | None) -> str:
    from pggrpo_cli.conf_files import first_comment

    file = conf_dir() / group / f"{name}.yaml"
    return first_comment(file) if name is not None and re.fullmatch(r"\w+", name) and file.is_file() else ""


def _overrides(run_dir: Path) -> Sequence[str]:
    try:
        words = yaml.safe_load((run_dir / runs.OVERRIDES).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return []  # the configuration says it all; this is how it was typed
    return [word for word in words if isinstance(word, str)] if isinstance(words, list) else []


def _number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "–"


def _quoted(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _plain(value: Any) -> str:
    if isinstance(value, str) and value and value == value.strip():
        return value
    return _quoted(value)


def _text(text: str) -> str:
    """Text that Markdown leaves alone."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", one_line(public_text(text)))


def _code(text: Any) -> str:
    """Inline code, in a table too."""
    inside = one_line(str(text)).replace("|", r"\|")
    longest = max((len(run) for run in re.findall("`+", inside)), default=0)
    fence, pad = "`" * (longest + 1), " " if longest else ""
    return f"{fence}{pad}{inside}{pad}{fence}" if inside else ""


def _fenced(text: str, language: str) -> list[str]:
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}{language}", text.rstrip("\n"), fence]
