"""The files of conf/ and of a user's own folder as text: groups, options, what their comments say. Without Hydra."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pggrpo_cli.config import conf_dir

COMMENTS_AT = 32
"""The column behind which comments stand, where the line is no longer than that."""
NARROWEST_COMMENT = 24
"""Columns; where fewer are left beside a key, its comment stands above it."""
_KEY = re.compile(r"(?P<indent> *)(?P<key>[\w-]+):(?P<rest>(?: .*)?)")
_DEFAULT = re.compile(r" *- (?:override +)?/?(?P<group>[\w/]+): *(?P<option>[^#]*?) *(?:#\s*(?P<comment>.*))?")
_QUOTED = re.compile(r"""(?<![^\s\[{,])(?:"(?:\\.|[^"\\])*"|'(?:''|[^'])*')""")
_PACKAGE = re.compile(r"#\s*@package\s+(\S+)")


def groups(folders: Sequence[Path] = ()) -> dict[str, dict[str, Path]]:
    """{group: {option: its file}}, both sorted: of our own conf/ and of `folders`, which users give as --config-dir."""
    found: dict[str, dict[str, Path]] = {}
    for folder in (*folders, conf_dir()):
        for file in folder.glob("*/*.yaml"):
            if file.parent.name != "hydra":
                found.setdefault(file.parent.name, {})[file.stem] = file
    return {group: dict(sorted(found[group].items())) for group in sorted(found)}


def default_options(name: str = "train") -> dict[str, list[str]]:
    """{group: options} that the defaults list of conf/<name>.yaml chooses; none for null."""
    return defaults_of(conf_dir() / f"{name}.yaml")


def defaults_of(file: Path) -> dict[str, list[str]]:
    """{group: options} that a file's own defaults list chooses."""
    chosen = {}
    for line in _defaults_list(file):
        match = _DEFAULT.fullmatch(line)
        if match is not None and "hydra" not in match["group"]:
            names = match["option"].strip("[] ").split(",")
            chosen[match["group"]] = [one.strip() for one in names if one.strip() not in ("null", "")]
    return chosen


def group_comments(name: str = "train") -> dict[str, str]:
    """{group: what conf/<name>.yaml says of it}."""
    matches = [_DEFAULT.fullmatch(line) for line in _defaults_list(conf_dir() / f"{name}.yaml")]
    return {match["group"]: match["comment"].strip() for match in matches if match is not None and match["comment"]}


def first_comment(file: Path) -> str:
    """The first line of a file's comment at its top, or nothing."""
    for line in _lines(file):
        if not line.startswith("#"):
            return ""
        if not _PACKAGE.match(line):
            return line.lstrip("# ").rstrip()
    return ""


def package_of(file: Path) -> str:
    """Where in the configuration a group's file lands: "loss", "reward", or "" for the top (_global_)."""
    for line in _lines(file)[:1]:
        match = _PACKAGE.match(line)
        if match is not None:
            return "" if match[1] == "_global_" else match[1]
    return file.parent.name


def key_comments(file: Path, package: str = "") -> dict[str, str]:
    """{dotted key: the comment behind it, or the lines above it}, below `package`."""
    found: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    above: list[str] = []
    in_header = True
    for line in _lines(file):
        if line.lstrip().startswith("#"):
            above += [] if in_header else [line.strip().lstrip("# ")]
            continue
        in_header = False
        match = _KEY.fullmatch(line)
        if match is None:
            above = []
            continue
        indent = len(match["indent"])
        path = [*((depth, key) for depth, key in path if depth < indent), (indent, match["key"])]
        comment = comment_behind(match["rest"]) or " ".join(above)
        above = []
        if comment:
            found[".".join([*([package] if package else []), *(key for _, key in path)])] = comment
    return found


def comment_behind(text: str) -> str:
    """What stands behind a # that begins a comment: after a blank, outside of quotes."""
    blanked = _QUOTED.sub(lambda quoted: "x" * len(quoted[0]), text)
    found = re.search(r"(?:^|\s)#", blanked)
    return text[found.end() :].strip() if found is not None else ""


def commented(text: str, comments: Mapping[str, str]) -> str:
    """YAML in block style, as OmegaConf writes it, with the comments of its keys behind them."""
    lines: list[str] = []
    path: list[tuple[int, str]] = []
    for line in text.splitlines():
        match = _KEY.fullmatch(line)
        if match is not None:
            indent = len(match["indent"])
            path = [*((depth, key) for depth, key in path if depth < indent), (indent, match["key"])]
            comment = comments.get(".".join(key for _, key in path))
            line = f"{line:{COMMENTS_AT}}  # {comment}" if comment else line
        lines.append(line)
    return "\n".join(lines) + "\n"


def within(text: str, width: int) -> str:
    """`text`, as `commented` writes it, with comments broken where they would pass `width`. For readers: a comment on a
    block of text is no YAML any more."""
    lines: list[str] = []
    for line in map(str.rstrip, text.splitlines()):
        comment = comment_behind(line)
        if len(line) <= width or not comment or _KEY.fullmatch(line) is None:
            lines.append(line)
            continue
        bare = line[: -len(comment)].rstrip().removesuffix("#").rstrip()
        indent = len(line) - len(line.lstrip())
        at = max(COMMENTS_AT, len(bare)) + 2
        if width - at >= NARROWEST_COMMENT:
            first, *rest = textwrap.wrap(comment, width - at - 2, break_on_hyphens=False)
            lines += [f"{bare:{at}}# {first}", *(f"{'':{at}}# {one}" for one in rest)]
        else:  # above the key
            room = max(width - indent - 2, NARROWEST_COMMENT)
            lines += [f"{'':{indent}}# {one}" for one in textwrap.wrap(comment, room, break_on_hyphens=False)]
            lines.append(bare)
    return "\n".join(lines) + "\n"


def comments_of(files: Iterable[tuple[Path, str]]) -> dict[str, str]:
    """Of several files, each with the package it lands in; the later ones win."""
    found: dict[str, str] = {}
    for file, package in files:
        found |= key_comments(file, package)
    return found


def _defaults_list(file: Path) -> list[str]:
    lines = _lines(file)
    if "defaults:" not in lines:
        return []
    within = lines[lines.index("defaults:") + 1 :]
    end = next(
        (place for place, line in enumerate(within) if line and not line.startswith((" ", "-", "#"))), len(within)
    )
    return within[:end]


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines()
