"""Every key, option and metric that a page of docs/ names exists, and the commands it gives are not refused."""

from __future__ import annotations

import re
import shlex
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from pggrpo_cli.check import check_values
from pggrpo_cli.composing import compose
from pggrpo_cli.config import MAPPING_KEYS, NAMED_GROUPS, plain

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
OTHERS = ("coming_from_trl.md", "coming_from_verl.md")
COLUMN = {"coming_from_trl.md": "ours", "coming_from_verl.md": "ours", "comparison.md": "pggrpo"}
NAMES = sorted(str(page.relative_to(ROOT)) for page in (*DOCS.glob("*.md"), ROOT / "README.md"))


@lru_cache
def known() -> tuple[frozenset[str], frozenset[str]]:
    """(every dotted key of conf/, every group=option), read from the files alone."""
    train = read(ROOT / "conf" / "train.yaml")
    keys = set(dotted({name: value for name, value in train.items() if name != "defaults"}))
    choices = set()
    for file in (ROOT / "conf").glob("*/*.yaml"):
        group, values = file.parent.name, read(file)
        choices.add(f"{group}={file.stem}")
        node = values.get(group, values) if group not in ("experiment", "debug") else {}
        keys |= {f"{group}.{key}" for key in dotted(node)}
        if group in NAMED_GROUPS:
            keys |= {f"{group}.{file.stem}.{key}" for key in MAPPING_KEYS.get(group, ())}
    return frozenset(keys), frozenset(choices)


def read(file: Path) -> dict[str, Any]:
    values = yaml.safe_load(re.sub(r"\$\{[^}]*\}", "x", file.read_text(encoding="utf-8")))
    assert isinstance(values, dict)
    return values


def dotted(values: dict[str, Any]) -> list[str]:
    found = []
    for key, value in values.items():
        found.append(str(key))
        found += [f"{key}.{inner}" for inner in dotted(value)] if isinstance(value, dict) else []
    return found


FREE = ("sampler.online", "data.columns", "data.where", "data.params", "data.options", "data.sources", "data.weights")
"""Mappings whose keys are the user's, or another node's."""
YOURS = ("mine", "gentle")
"""Names that the pages give to options of a user's own."""


def unknown(text: str, groups: set[str]) -> list[str]:
    """Keys and choices in code spans that nothing in conf/ has; NAME and KEY stand for any."""
    keys, choices = known()
    wrong = []
    for span in re.findall(r"`([^`\n]+)`", re.sub(r"(?ms)^```.*?^```", "", text)):
        for word in span.split():
            key, equals, value = word.partition("=")
            first, dot, _ = key.partition(".")
            if first not in groups or not re.fullmatch(r"[a-z_]+(\.[A-Za-z_0-9]+)*", key):
                continue
            if dot and not key.endswith((".md", ".py", ".jsonl", ".yaml", ".safetensors")):
                of_any = [
                    one for one in keys if re.fullmatch(re.sub("NAME|KEY", r"\\w+", key.replace(".", r"\.")), one)
                ]
                wrong += [key] if not of_any and not key.startswith(FREE) else []
            elif equals and not dot and re.fullmatch(r"\[?[a-z_0-9,]+\]?", value):
                wrong += [
                    f"{key}={one}"
                    for one in value.strip("[]").split(",")
                    if one not in YOURS
                    and key in {choice.partition("=")[0] for choice in choices}
                    and f"{key}={one}" not in choices
                ]
    return wrong


GROUPS = {file.parent.name for file in (ROOT / "conf").glob("*/*.yaml")} | {
    name for name, value in read(ROOT / "conf" / "train.yaml").items() if isinstance(value, dict) and name != "hydra"
}
HAND_WRITTEN = [name for name in NAMES if not re.search(r"/(commands|groups)/|CHANGELOG|metrics\.md", name)]


def ours(name: str) -> str:
    """A page; of tables that have other trainers' keys too, only the column that is ours."""
    page = ROOT / name
    text = page.read_text(encoding="utf-8")
    if page.name not in COLUMN:
        return text
    found, at = [], None
    for line in text.splitlines():
        row = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if COLUMN[page.name] in row:
            at = row.index(COLUMN[page.name])
        if row and at is not None:
            found.append(row[at])
        elif not row:
            at = None
    return "\n".join(found)


@pytest.mark.parametrize("name", HAND_WRITTEN)
def test_every_key_and_choice_that_a_page_names_exists(name: str) -> None:
    assert unknown(ours(name), GROUPS) == []


def test_a_key_that_does_not_exist_is_noticed() -> None:
    text = (
        "`loss.beta` `loss.betta=1` `loss=pgrpo` `reward=[format,formt]` `reward.NAME.weight` `reward.NAME.wait` `a.b`"
    )
    assert unknown(text, GROUPS) == ["loss.betta", "loss=pgrpo", "reward=formt", "reward.NAME.wait"]


@pytest.mark.parametrize("name", OTHERS)
def test_the_tables_name_many_keys_and_metrics_that_exist(name: str) -> None:
    page = ours(f"docs/{name}")
    assert len(set(re.findall(r"`([a-z_]+\.[a-z_.]+)`", page))) >= 30
    metrics = (DOCS / "metrics.md").read_text(encoding="utf-8")
    table = (DOCS / name).read_text(encoding="utf-8").partition("## Metrics")[2]
    column = 0 if "trl" in name else 1
    for line in table.splitlines():
        row = [cell.strip() for cell in line.split("|")[1:-1]]
        named = row[column] if len(row) == 3 and (column or row[1] == "the same") else ""
        for metric in re.findall(r"`([\w/<>]+)`", named):
            last = metric.rpartition("/")[2]
            assert f"`{metric}`" in metrics or f"`{last}`" in metrics or f"…/{last}`" in metrics, metric


@pytest.mark.parametrize("name", [*OTHERS, "comparison.md"])
def test_commands_that_are_given_whole_are_not_refused(name: str) -> None:
    text = (DOCS / name).read_text(encoding="utf-8")
    lines = re.findall(r"(?m)^pggrpo train (.+)$", text)
    assert lines or name == "comparison.md"
    for line in lines:
        check_values(plain(compose("train", shlex.split(line))))
