"""docs/commands/, docs/groups/ and docs/config.md from the code and conf/: make docs.

A page says what the code says: a command's --help, the comments, keys and defaults of conf/, the types and docstrings of the
classes, all read without importing torch. What is longer is written by hand, in the pages that are linked.
"""

from __future__ import annotations

import ast
import contextlib
import io
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path[:0] = [str(folder) for folder in (ROOT, DOCS) if str(folder) not in sys.path]

from as_markdown import anchor, cell, key_table, linked, page, prose, sentence  # noqa: E402
from omegaconf import OmegaConf  # noqa: E402

from pggrpo_cli import cli  # noqa: E402
from pggrpo_cli.class_source import NoSuchTarget, is_ours, read_parameters  # noqa: E402
from pggrpo_cli.conf_files import (  # noqa: E402
    default_options,
    defaults_of,
    first_comment,
    group_comments,
    groups,
    key_comments,
    package_of,
)
from pggrpo_cli.config import MAPPING_KEYS, NAMED_GROUPS, NODE_SETTINGS, SECTIONS, conf_dir, key_of  # noqa: E402

WHOLE_RUNS = ("experiment", "debug")
"""Groups whose files override any key: they are shown as they are."""
LONGER = {
    "data": "data.md#look-at-it-first",
    "inspect": "report.md#inspecting-one-step",
    "report": "report.md",
    "resume": "../README.md#a-run-on-disk",
    "reward": "rewards.md#trying-a-reward-out-pggrpo-reward-test",
    "train": "../README.md#60-seconds-to-a-learning-model",
    "watch": "report.md#watching",
}
"""Where more is said of a command that has no section in commands.md."""
GUIDES = {"data": "data.md", "order": "data.md#which-rows-when-order", "reward": "rewards.md"}
HOME = "https://github.com/pggrpo/pggrpo/blob/main"


def pages() -> dict[str, str]:
    """{path below docs/: its text}."""
    made = {"config.md": config_page(), "commands/README.md": commands_page(), "groups/README.md": groups_page()}
    made |= {f"commands/{name}.md": command_page(name, words) for name, words in cli.commands().items()}
    made |= {f"groups/{group}.md": group_page(group, files) for group, files in groups().items()}
    return {name: linked(text, "../" * name.count("/")) for name, text in made.items()}


def stale() -> list[str]:
    """Pages that are missing, say something else, or belong to nothing any more."""
    made = pages()
    there = {str(file.relative_to(DOCS)) for folder in ("commands", "groups") for file in (DOCS / folder).glob("*.md")}
    changed = {
        name
        for name, text in made.items()
        if not (DOCS / name).is_file() or (DOCS / name).read_text(encoding="utf-8") != text
    }
    return sorted(changed | there - set(made))


def write() -> None:
    made = pages()
    for name in stale():
        (DOCS / name).parent.mkdir(exist_ok=True)
        if name in made:
            (DOCS / name).write_text(made[name], encoding="utf-8")
        else:
            (DOCS / name).unlink()
        print(f"docs/{name}")


def commands_page() -> str:
    rows = [f"| [{name}]({name}.md) | {cell(words)} |" for name, words in cli.commands().items()]
    return page("Commands, one by one", "pggrpo_cli/command/", ["| `pggrpo …` | |", "|---|---|", *rows])


def command_page(name: str, words: str) -> str:
    sections = re.findall(r"(?m)^## (.+)$", (DOCS / "commands.md").read_text(encoding="utf-8"))
    longer = f"commands.md#{name}" if name in sections else LONGER.get(name)
    more = (
        []
        if longer is None
        else ["", f"What it does in more words: [{longer.rpartition('/')[2].partition('#')[0]}](../{longer})."]
    )
    lines = [sentence(words), "", "```text", help_of(name).strip("\n"), "```", *more]
    return page(f"pggrpo {name}", f"pggrpo_cli/command/{name}.py", lines)


def help_of(name: str) -> str:
    """What `--help` prints; of a command that Hydra composes, without groups and keys, which have pages of their own."""
    file = conf_dir() / f"{name}.yaml"
    text = OmegaConf.select(OmegaConf.load(file), "hydra.help") if file.is_file() else None
    if text is not None:
        return f"{text.header}\n\n{text.footer}"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        cli.main([name, "--help"])
    return printed.getvalue()


def groups_page() -> str:
    said, chosen = group_comments(), default_options()
    rows = [
        f"| [{group}]({group}.md) | {cell(said.get(group, ''))} | {', '.join(f'`{one}`' for one in chosen.get(group, ()))} "
        f"| {', '.join(f'`{one}`' for one in files if one not in chosen.get(group, ()))} |"
        for group, files in groups().items()
    ]
    head = ["| group | | unless you choose | also |", "|---|---|---|---|"]
    return page(
        "Groups",
        "conf/",
        ["`GROUP=OPTION` chooses. What is no group stands in [config.md](../config.md).", "", *head, *rows],
    )


def group_page(group: str, files: Mapping[str, Path]) -> str:
    chosen = default_options().get(group, [])
    comment = group_comments().get(group, "")
    said = f"{sentence(comment)} " if comment else ""
    choose = f"`{group}=[first,second]` chooses some" if group in NAMED_GROUPS else f"`{group}=NAME` chooses one"
    unless = f"; unless you do, it is `{','.join(chosen)}`" if chosen else ""
    guide = f" More: [{GUIDES[group].partition('#')[0]}](../{GUIDES[group]})." if group in GUIDES else ""
    lines = [said + f"{choose}{unless}.{guide}", ""]
    lines += ["| | |", "|---|---|"]
    lines += [
        f"| [`{group}={name}`](#{anchor(f'{group}={name}')}) | {cell(first_comment(file).rstrip(':'))} |"
        for name, file in files.items()
    ]
    lines += shared_keys(group)
    shown: dict[str, str] = {}
    for name, file in files.items():
        lines += ["", f"## {group}={name}", "", *option(group, name, file, shown)]
    return page(group, f"conf/{group}/" + f" and pggrpo_cli/{group}/" * (group not in WHOLE_RUNS), lines)


def shared_keys(group: str) -> list[str]:
    """The keys that every node of the group has, beside those of its class."""
    if group not in MAPPING_KEYS:
        return []
    section = "scoring.each" if group == "reward" else group
    place = f"{group}.NAME" if group == "reward" else group
    node = OmegaConf.select(OmegaConf.load(conf_dir() / "train.yaml"), section)
    values = OmegaConf.to_container(node, resolve=False)
    table = key_table(
        values, place, allowed_of(NODE_SETTINGS[group]), comments_below(conf_dir() / "train.yaml", section)
    )
    return ["", f"## Keys of every {group}", "", *table]


def option(group: str, name: str, file: Path, shown: dict[str, str]) -> list[str]:
    """One file of a group. `shown`: {target: the option under which its docstring stands already}."""
    own = "\n".join(header(file))
    if group in WHOLE_RUNS:
        return [prose(own), "", "```yaml", body(file), "```"]
    node: Any = container(file)
    path = [group] if package_of(file) == "" else []
    if group in NAMED_GROUPS:
        path.append(next(key for key in inner(node, path) if key != "defaults"))
    node = inner(node, path)
    target = str(node["_target_"])
    brings = [f"{one}={','.join(names)}" for one, names in defaults_of(file).items()]
    also = [f"It brings {', '.join(f'`{one}`' for one in brings)}."] if brings else []
    comments = comments_below(file, ".".join(path))
    place = ".".join([group, *path] if path[:1] != [group] else path)
    allowed = allowed_of(target) | (allowed_of(NODE_SETTINGS[group]) if group in NODE_SETTINGS else {})
    keys = {key: value for key, value in node.items() if not str(key).startswith("_")}
    table = key_table(keys, place, allowed, comments)
    said = (
        f"As [{group}={shown[target]}](#{anchor(f'{group}={shown[target]}')})."
        if target in shown
        else docstring(target)
    )
    shown.setdefault(target, name)
    return [part for one in (prose(own), *also, "\n".join(table), said) if one for part in (one, "")][:-1]


def inner(node: Any, path: list[str]) -> Any:
    for key in path:
        node = node[key]
    return node


def config_page() -> str:
    file = conf_dir() / "train.yaml"
    values, comments = container(file), key_comments(file)
    composed = set(groups())
    own = {key: value for key, value in values.items() if key not in composed | {"defaults", "hydra"}}
    plain = {key: value for key, value in own.items() if not isinstance(value, dict)}
    lines = [
        "The keys of `pggrpo train` that belong to no group, and what they are unless you change them. Those of the groups have "
        "pages of their own: [groups](groups/README.md). `pggrpo train --cfg job` prints all of a run.",
        "",
        "## The run",
        "",
        *key_table(plain, "", allowed_of("pggrpo_cli.config.TrainConfig"), comments),
    ]
    for name, section in own.items():
        if isinstance(section, dict):
            allowed = allowed_of(f"{SECTIONS[name].__module__}.{SECTIONS[name].__name__}") if name in SECTIONS else {}
            if name == "scoring":
                allowed |= {f"each.{key}": words for key, words in allowed_of(NODE_SETTINGS["reward"]).items()}
            said = [sentence(comments[name]), ""] if name in comments else []
            table = key_table(section, name, allowed, comments_below(file, name))
            lines += ["", f"## {name}", "", *said, *table]
    return page("Configuration", "conf/train.yaml and pggrpo_cli/config.py", lines)


def allowed_of(target: str) -> dict[str, str]:
    """{key: what its type allows, in words}; nothing for classes that are not ours."""
    if not is_ours(target):
        target = "pggrpo_cli.config.OptimizerSettings"
    try:
        return {key_of(name): one.type.allowed() for name, one in read_parameters(target).by_name.items()}
    except NoSuchTarget:
        return {}


def docstring(target: str) -> str:
    if not is_ours(target):
        return f"`{target}`, whose own documentation says more."
    module, _, name = target.rpartition(".")
    path = f"{module.replace('.', '/')}.py"
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    found = next(one for one in tree.body if isinstance(one, ast.ClassDef | ast.FunctionDef) and one.name == name)
    return prose(ast.get_docstring(found) or "") + f"\n\n[{path}]({HOME}/{path})"


def comments_below(file: Path, place: str) -> dict[str, str]:
    prefix = f"{place}." if place else ""
    return {key.removeprefix(prefix): words for key, words in key_comments(file).items() if key.startswith(prefix)}


def container(file: Path) -> dict[str, Any]:
    values = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def header(file: Path) -> list[str]:
    """The comment at the top of a file, without its package."""
    found = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if "@package" not in line:
            found.append(line.lstrip("# ").rstrip())
    return found


def body(file: Path) -> str:
    lines = file.read_text(encoding="utf-8").splitlines()
    return "\n".join(lines[next(place for place, line in enumerate(lines) if not line.startswith("#")) :])


if __name__ == "__main__":
    write()
